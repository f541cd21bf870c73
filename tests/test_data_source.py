"""How a data set gets onto the machine: mirror, cache, download, checks, and what is said when it does not."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import pytest

from rindle.tasks.data import source
from rindle.tasks.data.source import DataError, Package, Source, locate

FILES = {"a/one.txt": b"one", "a/two.txt": b"two" * 50_000, "readme": b"not read"}
SOURCE = Source(
    name="toy",
    title="Toy corpus",
    home="https://example.org/toy",
    licence="CC0",
    keep=r"a/\w+\.txt",
    digest="",
    ways=((Package("toy.tar.gz", inside="toy"),), (Package("toy.zip", "http://localhost/toy.zip", inside="*"),)),
    folders=("toy",),
)


def lines(files):
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))


KEPT = {name: data for name, data in FILES.items() if name.startswith("a/")}
SOURCE = dataclasses.replace(SOURCE, digest=hashlib.sha256(lines(KEPT).encode()).hexdigest())


def tar(path, files, top="toy/"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def pack_zip(path, files, top="toy-main/"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return path


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty mirror and an empty cache."""
    monkeypatch.setenv("RINDLE_DATA_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("RINDLE_DATA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def held(folder):
    return {name: (folder / name).read_bytes() for name in source.members(folder, r"[^.].*")}


def test_a_mirrors_package_is_unpacked_into_the_cache(places):
    tar(places / "mirror/toy.tar.gz", FILES)
    folder = locate(SOURCE)
    assert folder == places / "cache/toy"
    assert held(folder) == KEPT
    (places / "mirror/toy.tar.gz").unlink()
    assert locate(SOURCE) == folder  # now from the cache


def test_a_mirrors_folder_is_used_in_place(places):
    tar(places / "mirror/toy.tar.gz", FILES)
    (places / "mirror/toy/a").mkdir(parents=True)
    (places / "mirror/toy/a/one.txt").write_bytes(b"mine")
    assert locate(SOURCE) == places / "mirror/toy"


def test_the_callers_folder_comes_first_and_must_hold_the_files(places):
    tar(places / "mirror/toy.tar.gz", FILES)
    (places / "own/a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"Toy corpus: no file of its layout .* in .*own"):
        locate(SOURCE, places / "own")
    (places / "own/a/one.txt").write_bytes(b"mine")
    assert locate(SOURCE, places / "own") == places / "own"


def test_a_changed_file_is_refused_and_leaves_nothing(places):
    tar(places / "mirror/toy.tar.gz", FILES | {"a/one.txt": b"oen"})
    with pytest.raises(DataError, match=r"not the published ones: SHA-256 over 2 files is [0-9a-f]{64}, expected"):
        locate(SOURCE, download=False)
    assert not list((places / "cache").iterdir())


def test_an_unfinished_folder_in_the_cache_is_not_taken(places):
    (places / "cache/toy/a").mkdir(parents=True)
    (places / "cache/toy/a/one.txt").write_bytes(b"half")
    tar(places / "mirror/toy.tar.gz", FILES)
    assert held(locate(SOURCE)) == KEPT


def test_what_another_process_unpacked_meanwhile_stays(places, monkeypatch):
    package = tar(places / "mirror/toy.tar.gz", FILES)
    first = source.unpack(SOURCE, SOURCE.ways[0], [package])
    (first / "being-read").write_bytes(b"")
    assert source.unpack(SOURCE, SOURCE.ways[0], [package]) == first and (first / "being-read").exists()
    assert [path.name for path in (places / "cache").iterdir()] == ["toy"]


@pytest.mark.parametrize("name", ["../../out.txt", "/abs/a/out.txt", "toy/../../a/out.txt"])
def test_a_member_cannot_leave_the_folder(places, name):
    tar(places / "mirror/toy.tar.gz", {**{f"toy/{k}": v for k, v in FILES.items()}, name: b"evil"}, top="")
    loose = dataclasses.replace(SOURCE, keep=r".*\.txt")
    locate(loose)
    assert not list(places.rglob("out.txt"))


def test_single_files_are_unpacked(places):
    both = dataclasses.replace(
        SOURCE, keep=r"(plain|packed)-file", digest=None, ways=((Package("d/plain-file"), Package("d/packed-file.gz")),)
    )
    (places / "mirror/d").mkdir(parents=True)
    (places / "mirror/d/plain-file").write_bytes(b"1")
    (places / "mirror/d/packed-file.gz").write_bytes(gzip.compress(b"2"))
    assert held(locate(both)) == {"plain-file": b"1", "packed-file": b"2"}


def test_the_error_says_what_where_and_how(places):
    with pytest.raises(DataError) as error:
        locate(SOURCE, download=False)
    for part in (
        "Toy corpus was not found",
        str(places / "mirror/toy.tar.gz"),
        str(places / "cache/toy"),
        "https://example.org/toy",
        "put toy/ or toy.tar.gz or toy.zip into a folder and set RINDLE_DATA_MIRROR",
        "Licence: CC0",
    ):
        assert part in str(error.value)


def test_the_error_says_that_there_is_no_mirror(places, monkeypatch):
    monkeypatch.delenv("RINDLE_DATA_MIRROR")
    with pytest.raises(DataError, match="RINDLE_DATA_MIRROR is not set"):
        locate(SOURCE, download=False)


class Server:
    """Serves one file; breaks off after `cut` bytes as often as `breaks` says; resumes if `ranges`."""

    def __init__(self, data, cut=None, breaks=0, ranges=True):
        self.asked = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                nonlocal breaks
                wanted = self.headers.get("Range")
                outer.asked.append(wanted)
                start = int(wanted[6:-1]) if wanted and ranges else 0
                if not self.path.endswith("toy.zip"):
                    return self.send_error(404)
                if start >= len(data):
                    return self.send_error(416)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                broken, breaks = breaks > 0, breaks - 1
                self.wfile.write(data[start:][: cut if broken else None])

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/toy.zip"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def data(tmp_path):
    return pack_zip(tmp_path / "published.zip", FILES).read_bytes()


def at(url, checksum=None):
    return dataclasses.replace(SOURCE, ways=((Package("toy.zip", url, checksum, inside="*"),),))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(places, data, monkeypatch, ranges):
    monkeypatch.setattr(source.time, "sleep", lambda seconds: None)
    with Server(data, cut=70_000, breaks=2, ranges=ranges) as server:
        published = at(server.url, "sha256:" + hashlib.sha256(data).hexdigest())
        assert held(locate(published)) == KEPT
    assert server.asked == [None, "bytes=70000-", "bytes=140000-" if ranges else "bytes=70000-"]


def test_a_later_run_goes_on_with_the_part_of_an_earlier_one(places, data):
    part = places / "cache/downloads/toy.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(data[:1000])
    with Server(data) as server:
        assert held(locate(at(server.url))) == KEPT
    assert server.asked == ["bytes=1000-"]


def test_a_whole_part_is_not_asked_for_again(places, data):
    part = places / "cache/downloads/toy.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(data)
    with Server(data) as server:
        assert held(locate(at(server.url))) == KEPT


def test_a_download_with_another_checksum_is_thrown_away(places, data):
    with Server(data) as server:
        with pytest.raises(DataError, match=r"md5 is [0-9a-f]{32}, published is 00; the download was thrown away"):
            locate(at(server.url, "md5:00"))
    assert not list((places / "cache/downloads").iterdir())


def test_a_missing_address_is_not_tried_again(places, data):
    with Server(data) as server:
        with pytest.raises(DataError, match=r"Downloads failed:\n.*other: HTTP Error 404: .*\(attempt 1\)"):
            locate(at(server.url.replace("toy.zip", "other")))
    assert len(server.asked) == 1


def test_progress_is_shown(places, data, capsys):
    with Server(data) as server:
        locate(at(server.url))
    assert "toy.zip: 0.2 of 0.2 MB (100 %)" in capsys.readouterr().err
