"""Pictures come in here: sources, near-duplicates, and the split into twins."""

from twinscore.images.clustering import Clusters, Pair, cluster, extreme_pairs
from twinscore.images.duplicates import Duplicates, near_duplicates
from twinscore.images.files import picture
from twinscore.images.given import Given, from_data
from twinscore.images.imageset import ImageSet, LazyPixels, from_pixels
from twinscore.images.name_lists import read_names, write_names
from twinscore.images.sources import load, parse
from twinscore.images.split_rules import BY, By, having, resolve
from twinscore.images.twin_subsets import Twins, held_out, largest_n, twins

__all__ = [
    "BY",
    "By",
    "Clusters",
    "Duplicates",
    "Given",
    "ImageSet",
    "LazyPixels",
    "Pair",
    "Twins",
    "cluster",
    "extreme_pairs",
    "from_data",
    "from_pixels",
    "having",
    "held_out",
    "largest_n",
    "load",
    "near_duplicates",
    "parse",
    "picture",
    "read_names",
    "resolve",
    "twins",
    "write_names",
]
