"""Frequency bias and robustness of convolutional networks. The modules are exported from the notebooks in nbs/api."""
import os

# torch's two threads wait for each other by spinning; beside any other busy process that makes small networks
# twenty times slower. A short spin costs a few per cent on a quiet machine. It counts before torch is imported.
os.environ.setdefault('GOMP_SPINCOUNT', '10000')

__version__ = '0.1.0'
