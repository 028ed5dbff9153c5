"""Tables: what their columns mean, where they come from, how they are split, scaled and have cells hidden.

Importing this costs numpy and the registry; scikit-learn is imported only when one of its data sets is read.
"""

from dgm_ray.data.cells import CellHoldout
from dgm_ray.data.codes import from_codes, to_codes
from dgm_ray.data.files import Files
from dgm_ray.data.frames import Described, FrameEncoder
from dgm_ray.data.holdout import Holdout, Source
from dgm_ray.data.masks import mcar_mask, uniforms
from dgm_ray.data.metadata import Block, Kind, Metadata, Variable
from dgm_ray.data.missing import (
    MAR,
    MCAR,
    MNAR,
    Blocks,
    FittedMechanism,
    Learned,
    Mechanism,
    MNARQuantile,
    Patterns,
)
from dgm_ray.data.missing_report import MarCheck, achieved, mar_check
from dgm_ray.data.origin import Origin
from dgm_ray.data.scaling import MinMaxScaler
from dgm_ray.data.sources import BreastCancer, Digits, InMemory, Npy, Wine, read_floats, read_mask
from dgm_ray.data.splits import Prepared, Scored, Split, Streamed
from dgm_ray.data.statistics import discretize, means_and_modes
from dgm_ray.data.table import Table, checked, class_numbers, read_npy
from dgm_ray.data.user_files import Csv, Parquet

__all__ = [
    "MAR",
    "MCAR",
    "MNAR",
    "Block",
    "Blocks",
    "BreastCancer",
    "Described",
    "Csv",
    "Digits",
    "Files",
    "FrameEncoder",
    "CellHoldout",
    "FittedMechanism",
    "Holdout",
    "InMemory",
    "Kind",
    "Learned",
    "MNARQuantile",
    "MarCheck",
    "Mechanism",
    "Metadata",
    "MinMaxScaler",
    "Npy",
    "Origin",
    "Parquet",
    "Patterns",
    "Prepared",
    "Scored",
    "Source",
    "Split",
    "Streamed",
    "Table",
    "Variable",
    "Wine",
    "achieved",
    "checked",
    "class_numbers",
    "discretize",
    "mar_check",
    "from_codes",
    "mcar_mask",
    "means_and_modes",
    "read_floats",
    "read_mask",
    "read_npy",
    "to_codes",
    "uniforms",
]
