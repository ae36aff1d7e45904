"""Data: datasets, a loader of batches, readers of files."""

from treadle.nn.data import transforms
from treadle.nn.data.collation import default_collate
from treadle.nn.data.dataset import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from treadle.nn.data.errors import DataError, WorkerError
from treadle.nn.data.idx import mnist, read_idx
from treadle.nn.data.images import ImageFolder, read_image
from treadle.nn.data.loader import DataLoader
from treadle.nn.data.randomness import sample_generator
from treadle.nn.data.tables import read_csv, read_npy
from treadle.nn.data.text import CharTokens, TokenWindows, read_text

__all__ = [
    "CharTokens",
    "ConcatDataset",
    "DataError",
    "DataLoader",
    "Dataset",
    "ImageFolder",
    "Subset",
    "TensorDataset",
    "TokenWindows",
    "WorkerError",
    "default_collate",
    "mnist",
    "random_split",
    "read_csv",
    "read_idx",
    "read_image",
    "read_npy",
    "read_text",
    "sample_generator",
    "transforms",
]
