"""Where a data set comes from: its official address, its checksum, its licence, and how it gets onto this machine.

A data set is looked for in this order, and the first place that has it wins:

1. the folder that the caller names;
2. the mirror, `RINDLE_DATA_MIRROR`: a folder of this data set's layout, or one of its packages;
3. the cache, `RINDLE_DATA_CACHE` (else `$XDG_CACHE_HOME/rindle`, else `~/.cache/rindle`);
4. the official address, downloaded into the cache. An interrupted download goes on where it stopped.

What is checked is what is read: one SHA-256 over the files that the loader opens, whatever package they came in. It is
computed when a package is unpacked and kept as a mark beside the files; a folder of the caller's or of the mirror is
the owner's business, and only has to hold the files.
"""

import gzip
import hashlib
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import RindleError


class DataError(RindleError):
    """A data set is not there, or is not what it should be."""


@dataclass(frozen=True)
class Package:
    """One file to obtain: an archive (tar or zip), a gzipped file or a plain one."""

    name: str  # its path in the mirror
    url: str | None = None  # None: only a mirror can have it
    checksum: str | None = None  # "md5:…" or "sha256:…" of the package as its publisher states it
    inside: str = ""  # the folder in the archive that becomes the data set's folder; "*" is any one folder


@dataclass(frozen=True)
class Source:
    """A data set: which packages hold it (alternatives, each complete), and what must come out of them."""

    name: str
    title: str
    home: str  # the page where a person would look for it
    licence: str
    keep: str  # a regular expression: the paths, inside its folder, of the files that the loader reads
    digest: str | None  # SHA-256 over those files, see `digest`; None where the owner's copy cannot be known
    ways: tuple[tuple[Package, ...], ...] = ()
    folders: tuple[str, ...] = ()  # its folder's usual names in a mirror
    advice: str = ""  # how to get it where there is no download


def mirror() -> Path | None:
    path = os.environ.get("RINDLE_DATA_MIRROR")
    return Path(path).expanduser() if path else None


def cache() -> Path:
    if path := os.environ.get("RINDLE_DATA_CACHE"):
        return Path(path).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rindle"


def members(folder: Path, keep: str) -> list[str]:
    """The paths in the folder that the loader reads, sorted."""
    pattern = re.compile(keep)
    paths = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in paths if pattern.fullmatch(p))


def digest(folder: Path, keep: str) -> str:
    """SHA-256 over "<sha256 of the file>  <path>\\n" of every file that is read, in sorted order of the paths."""
    total = hashlib.sha256()
    for path in members(folder, keep):
        total.update(f"{hashlib.sha256((folder / path).read_bytes()).hexdigest()}  {path}\n".encode())
    return total.hexdigest()


def locate(source: Source, folder: str | Path | None = None, download: bool = True) -> Path:
    """The folder that holds the data set, fetched and unpacked if need be."""
    if folder is not None:
        if members(Path(folder), source.keep):
            return Path(folder)
        raise DataError(f"{source.title}: no file of its layout ({source.keep}) in {folder}. {how_to_get(source)}")
    looked = []
    if root := mirror():
        for name in source.folders:
            looked.append(root / name)
            if (root / name).is_dir() and members(root / name, source.keep):
                return root / name
    home = cache() / source.name
    looked.append(home)
    if checked(source, home):
        return home
    for way in source.ways:
        files = [root / package.name for package in way] if root else []
        looked += files
        if files and all(file.is_file() for file in files):
            return unpack(source, way, files)
    errors = []
    for way in source.ways:
        if download and all(package.url for package in way):
            try:
                return unpack(source, way, [fetch(package, cache() / "downloads") for package in way])
            except (OSError, DataError) as error:
                errors.append(str(error))
    places = "".join(f"\n  {path}" for path in looked)
    tried = "".join(f"\n  {error}" for error in errors)
    raise DataError(
        f"{source.title} was not found. Looked for:{places}"
        + (f"\nDownloads failed:{tried}" if tried else "")
        + ("" if root else "\nRINDLE_DATA_MIRROR is not set.")
        + f"\n{how_to_get(source)}"
    )


def checked(source: Source, home: Path) -> bool:
    mark = home / ".checked"
    return mark.exists() and mark.read_text() == (source.digest or "")


def how_to_get(source: Source) -> str:
    names = " or ".join(" + ".join(package.name for package in way) for way in source.ways)
    folders = " or ".join(f"{name}/" for name in source.folders)
    wanted = " or ".join(filter(None, (folders, names)))
    return (
        f"How to get it: {source.advice or 'it is published at'} {source.home}; "
        f"put {wanted} into a folder and set RINDLE_DATA_MIRROR to that folder. Licence: {source.licence}."
    )


def unpack(source: Source, way: tuple[Package, ...], files: list[Path]) -> Path:
    """Unpack into the cache, check, and only then give the folder its name: a half-unpacked one never has it."""
    home = cache() / source.name
    cache().mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{source.name}-", dir=cache()))
    try:
        for package, file in zip(way, files):
            unpack_one(package, file, work, re.compile(source.keep))
        found = digest(work, source.keep)
        if source.digest is not None and found != source.digest:
            raise DataError(
                f"{source.title}: the files in {', '.join(map(str, files))} are not the published ones: "
                f"SHA-256 over {len(members(work, source.keep))} files is {found}, expected {source.digest}. "
                "Delete the package and get it again."
            )
        (work / ".checked").write_text(source.digest or "")
        if not checked(source, home):  # else another process was faster, and may be reading already
            shutil.rmtree(home, ignore_errors=True)  # an older layout, or an unfinished one
            try:
                os.replace(work, home)
            except OSError:
                if not checked(source, home):
                    raise
        return home
    finally:
        shutil.rmtree(work, ignore_errors=True)


def unpack_one(package: Package, file: Path, work: Path, keep: re.Pattern) -> None:
    name = package.name
    if re.search(r"\.(tar(\.\w+)?|tgz)$", name):
        with tarfile.open(file, "r:*") as archive:
            for member in archive:
                if member.isfile() and (path := inner(package, member.name)) and keep.fullmatch(path):
                    write(work, path, archive.extractfile(member))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if not member.is_dir() and (path := inner(package, member.filename)) and keep.fullmatch(path):
                    write(work, path, archive.open(member))
    elif name.endswith(".gz"):
        write(work, PurePosixPath(name).name.removesuffix(".gz"), gzip.open(file))
    else:
        write(work, PurePosixPath(name).name, open(file, "rb"))


def inner(package: Package, name: str) -> str | None:
    """A member's path inside the data set's folder; None for a member outside of it, or one that tries to get out."""
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    prefix = PurePosixPath(package.inside).parts
    if PurePosixPath(name).is_absolute() or ".." in parts or len(parts) <= len(prefix):
        return None
    if any(want not in ("*", part) for want, part in zip(prefix, parts)):
        return None
    return "/".join(parts[len(prefix) :])


def write(work: Path, path: str, stream) -> None:
    target = work / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with stream, open(target, "wb") as out:
        shutil.copyfileobj(stream, out)


def fetch(package: Package, folder: Path, tries: int = 4, pause: float = 2.0) -> Path:
    """Download a package; goes on where an earlier attempt, of this run or of one before, stopped."""
    target = folder / package.name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(1, tries + 1):
        try:
            receive(package, part)
            break
        except (OSError, urllib.error.URLError) as error:
            fatal = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410)
            if fatal or attempt == tries:
                kept = f"; {part.stat().st_size} bytes are kept in {part}" if part.exists() else ""
                raise DataError(f"{package.url}: {error} (attempt {attempt}){kept}") from error
            time.sleep(pause * attempt)
    if package.checksum:
        kind, want = package.checksum.split(":")
        with open(part, "rb") as stream:
            found = hashlib.file_digest(stream, kind).hexdigest()
        if found != want:
            part.unlink()
            raise DataError(f"{package.url}: {kind} is {found}, published is {want}; the download was thrown away")
    os.replace(part, target)
    return target


def receive(package: Package, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(package.url, headers={"User-Agent": "rindle"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        reply = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is left to send, the part is whole
            raise
        return
    with reply:
        if have and reply.status != 206:  # the server does not resume: start over
            have = 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        with open(part, "ab" if have else "wb") as out:
            for block in iter(lambda: reply.read(1 << 18), b""):
                out.write(block)
                have += len(block)
                progress(package.name, have, total)
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


_shown = 0.0


def progress(name: str, have: int, total: int | None) -> None:
    """One line that is rewritten, on a terminal; a line every ten seconds elsewhere."""
    global _shown
    terminal = sys.stderr.isatty()
    now, done = time.monotonic(), have == total
    if not done and now - _shown < (0.2 if terminal else 10):
        return
    _shown = now
    of = f" of {total / 1e6:.1f} MB ({100 * have / total:.0f} %)" if total else " MB"
    print(f"{name}: {have / 1e6:.1f}{of}", end="\r" if terminal and not done else "\n", file=sys.stderr, flush=True)
