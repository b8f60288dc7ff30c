"""What is published of each data set: where its files lie, and how many classes and images it has.

Folders, splits and class names are those of CoOp (Zhou et al. 2022), https://github.com/KaiyangZhou/CoOp, DATASETS.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """root: its folder among others', where --raw is the folder of them all; further names are those of mirrors.
    images: where its images lie in that, likewise.  listing: what says which image is of which split and class: a
    `split_zhou_*.json`, `variants.txt` (FGVC's own text files), or `classnames.txt` (ImageNet's folders).
    classes, counts: how many there are, and images by split; None where that is not known from a source."""

    title: str
    root: tuple[str, ...]
    images: tuple[str, ...]
    listing: str
    classes: int
    counts: dict[str, int | None]

    def root_in(self, raw: Path) -> Path:
        """Its folder: `raw` itself, or the one there, under any of its names, that holds the listing."""
        places = [raw, *(raw / name for name in self.root)]
        return next((place for place in places if (place / self.listing).is_file()), raw)

    def images_in(self, root: Path) -> Path:
        """The folder of its images, under the first of its names that is there."""
        return next((root / name for name in self.images if (root / name).is_dir()), root / self.images[0])

    @property
    def unpack(self) -> str:
        """What to do where files are missing."""
        folders = " or ".join(f"{name}/" for name in self.images if name != ".")
        lists = "CoOp's " if self.listing.startswith("split_zhou") else ""
        return f"put {lists}{self.listing} there and the images into {folders}; docs/data.md has their sources"


PUBLISHED = {
    "imagenet": Published(
        "ImageNet", ("imagenet",), ("images", "."), "classnames.txt", 1000, {"train": None, "test": 50_000}
    ),
    "caltech101": Published(
        "Caltech101",
        ("caltech-101", "caltech101"),
        ("101_ObjectCategories", "caltech101/101_ObjectCategories", "caltech-101/101_ObjectCategories"),
        "split_zhou_Caltech101.json",
        100,
        {"train": 4128, "val": 1649, "test": 2465},
    ),
    "oxford_pets": Published(
        "OxfordPets",
        ("oxford_pets", "oxford-iiit-pet"),
        ("images", "oxford-iiit-pet/images"),
        "split_zhou_OxfordPets.json",
        37,
        {"train": 2944, "val": 736, "test": 3669},
    ),
    "stanford_cars": Published(
        "StanfordCars",
        ("stanford_cars",),
        ("car_data", "stanford_cars", "."),
        "split_zhou_StanfordCars.json",
        196,
        {"train": 6509, "val": 1635, "test": 8041},
    ),
    "flowers102": Published(
        "OxfordFlowers",
        ("oxford_flowers", "flowers-102", "flowers102"),
        ("jpg", "oxford_flowers/jpg", "flowers-102/jpg"),
        "split_zhou_OxfordFlowers.json",
        102,
        {"train": 4093, "val": 1633, "test": 2463},
    ),
    "food101": Published(
        "Food101",
        ("food-101", "food101"),
        ("images", "food-101/images"),
        "split_zhou_Food101.json",
        101,
        {"train": 50_500, "val": 20_200, "test": 30_300},
    ),
    "fgvc_aircraft": Published(
        "FGVCAircraft",
        ("fgvc_aircraft", "fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b"),
        ("images", "data/images"),
        "variants.txt",
        100,
        {"train": None, "val": None, "test": 3333},
    ),
    "sun397": Published(
        "SUN397",
        ("sun397",),
        ("SUN397", "."),
        "split_zhou_SUN397.json",
        397,
        {"train": 15_880, "val": 3970, "test": 19_850},
    ),
    "dtd": Published(
        "DTD",
        ("dtd",),
        ("images", "dtd/images"),
        "split_zhou_DescribableTextures.json",
        47,
        {"train": 2820, "val": 1128, "test": 1692},
    ),
    "eurosat": Published(
        "EuroSAT",
        ("eurosat", "EuroSAT"),
        ("2750", "eurosat/2750", "EuroSAT/2750", "EuroSAT_RGB"),
        "split_zhou_EuroSAT.json",
        10,
        {"train": 13_500, "val": 5400, "test": 8100},
    ),
    "ucf101": Published(
        "UCF101",
        ("ucf101", "UCF101"),
        ("UCF-101-midframes",),
        "split_zhou_UCF101.json",
        101,
        {"train": 7639, "val": 1898, "test": 3783},
    ),
}
GENERATED = {
    world: Published(f"the {world} of shapes", ("shapes",), ("images",), "split_zhou_Shapes.json", classes, {})
    for world, classes in (("objects", 30), ("places", 54), ("textures", 20))
}
"""The toy world's, by data/shapes/classes.py; their numbers are as one wants them."""
