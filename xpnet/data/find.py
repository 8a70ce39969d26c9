"""Files of data sets in a folder, in every usual layout and spelling, and where folders are looked
for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from xpnet.backends.user_cache import cache_folder
from xpnet.io.files import name_of

DEEPEST = 4                 # folders inside each other
MOST_FOLDERS = 2000         # that are searched: XPNET_HOME may be a folder of much else

Files = dict[str, Path]     # a file for each name that was looked for


def plain(name: str) -> str:
    """A file's name without .gz, in small letters, with hyphens: train-images.idx3-ubyte.gz and
    Train_Images-idx3-ubyte are the same file."""
    name = name.casefold().removesuffix(".gz")
    return name.translate(str.maketrans("._ ", "---"))


def layouts(root: Path, names: Sequence[str]) -> Iterator[Files]:
    """The folders in `root`, itself first and those nearer to it before others, that have all the
    files; each may be in a folder of its own name, as in Kaggle's archives.

    Files of several folders are never combined: MNIST and Fashion-MNIST have the same names.
    """
    wanted = {plain(name): name for name in names}
    for folders, files in _walk(root):
        found = {plain(path.name): path for path in reversed(files)}    # unpacked before .gz
        for folder in folders:
            key = plain(folder.name)
            inside = [path for path in _listed(folder)[1] if plain(path.name) == key]
            if key in wanted and inside:
                found.setdefault(key, inside[0])
        if wanted.keys() <= found.keys():
            yield {name: found[key] for key, name in wanted.items()}


def all_files(root: Path) -> Iterator[Path]:
    for _, files in _walk(root):
        yield from files


def _walk(root: Path) -> Iterator[tuple[list[Path], list[Path]]]:
    """(folders, files) of each folder, breadth first."""
    level, searched = [root], 0
    for _ in range(DEEPEST + 1):
        below: list[Path] = []
        for folder in level:
            if searched == MOST_FOLDERS:
                return
            searched += 1
            folders, files = _listed(folder)
            yield folders, files
            below += folders
        level = below


def _listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and files in a folder, sorted, without hidden ones; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries
                           if not entry.name.startswith("."))
    except OSError:
        return [], []
    return ([folder / name for name, is_dir in found if is_dir],
            [folder / name for name, is_dir in found if not is_dir])


def locate(who: str, data_dir: str | os.PathLike[str] | None,
           search: Callable[[Path], Files | None], names: Sequence[str],
           download: Callable[[Path], Files], hint: str = "") -> Files:
    """The files of a data set: in `data_dir` alone, if it is given; else in $XPNET_HOME, in the
    user's cache folder, or downloaded into a folder `who` there.

    Args:
        search: finds the files in a folder; None if they are not there.
        names: for the error.
        download: downloads the files that are missing in a folder.
        hint: what else may help.
    """
    if data_dir is not None:
        # Only this folder is searched: files from elsewhere would hide a mistake.
        folder = Path(name_of(data_dir, who)).expanduser()
        return search(folder) or refuse(who, folder, names, hint)
    home = os.environ.get("XPNET_HOME")
    if home and (files := search(Path(home).expanduser())):
        return files
    cache = cache_folder()
    if files := search(cache):
        return files
    return download(cache / who)


def refuse(who: str, folder: Path, names: Sequence[str], hint: str) -> NoReturn:
    """Raise FileNotFoundError: what is missing, and what is there."""
    there = {plain(path.name) for path in all_files(folder)}
    here = [name for name in names if plain(name) in there]
    state = (f"a folder that has {', '.join(here) or 'none of them'}" if folder.is_dir()
             else "no such folder")
    raise FileNotFoundError(f"{who} '{folder}': expected the files {', '.join(names)} in one "
                            f"folder, here or below. Received: {state}.{hint}")
