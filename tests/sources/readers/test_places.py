import functools
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pipeline import UserError
from pipeline.sources.readers import open_source
from pipeline.sources.rules import load_rules


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder, and its address on a web server that sends whole files only."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_format_over_http(served, make, read):
    folder, address = served
    counts = np.arange(6, dtype="u1").reshape(2, 3)
    data = make.dataset(2)
    data.to_netcdf(folder / "three.nc", engine="scipy")
    data.to_zarr(folder / "a.zarr")
    make.save(data, folder / "four.nc")
    make.geotiff(folder / "202001010000_x.tif", counts)
    message = {"paramId": 228, "dataDate": 20200101, "dataTime": 0, "stepRange": "0-1"}
    make.grib(folder / "a.grib", [message | {"values": counts * 1e-3}])
    for path in (make.knmi(folder / "a.h5", counts), *map(str, folder.glob("*.[nzgt]*"))):
        rules = load_rules("fmi") if path.endswith(".tif") else None
        url = f"{address}/{Path(path).name}"
        ours, theirs = open_source(url, rules), open_source(path, rules)
        np.testing.assert_array_equal(read(ours), read(theirs))
        np.testing.assert_array_equal(ours.header.times, theirs.header.times)
    assert not [
        name for name in os.listdir(tempfile.gettempdir()) if name.startswith(f"finescale-{os.getpid()}")
    ]


_COLLECTING = """
import functools, gc, h5py, http.server, sys, threading
from pipeline.sources.readers import open_source

class Collecting(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        kept = [[] for _ in range(300_000)]  # more objects than the threshold: a collection, in this thread
        super().do_GET()

gc.set_threshold(200_000)
handler = functools.partial(Collecting, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
read = h5py.File.__init__

def late(self, *arguments):
    garbage = [h5py.h5s.create_simple((1,))]
    garbage.append(garbage)
    del garbage
    read(self, *arguments)

h5py.File.__init__ = late
open_source(f"http://127.0.0.1:{server.server_port}/a.h5")
"""


def test_garbage_of_h5py_does_not_stop_a_read(make, tmp_path):
    """Whoever collects it waits for h5py's lock, which a reader holds until the bytes are there."""
    make.knmi(tmp_path / "a.h5", np.ones((2, 3)))
    subprocess.run([sys.executable, "-c", _COLLECTING, str(tmp_path)], check=True, timeout=30)


def test_not_there_over_http(served):
    _, address = served
    with pytest.raises(UserError, match=rf"^{address}/nothing\.nc: no such file$"):
        open_source(f"{address}/nothing.nc")
    with pytest.raises(UserError, match="no such file; on the web there are no patterns, name each file"):
        open_source(f"{address}/*.nc")


def test_zarr_and_netcdf_on_an_object_store(make, read):
    data = make.dataset(2)
    fs = fsspec.filesystem("memory")
    with fs.open("/bucket/a.nc", "wb") as stream:
        stream.write(bytes(data.to_netcdf(engine="h5netcdf")))
    data.to_zarr("memory://bucket/a.zarr")
    for url in ("memory://bucket/a.nc", "memory://bucket/a.zarr"):
        np.testing.assert_array_equal(read(open_source(url)), data.precipitation.values)
    fs.rm("/bucket", recursive=True)


def test_rules_for_another_kind_of_file(make, tmp_path):
    path = make.save(make.dataset(), tmp_path / "201705091045_a.nc")
    with pytest.raises(UserError, match=r"a\.nc: is HDF5, and the rules \(FMI .*\) are for reader: geotiff"):
        open_source(path, load_rules("fmi"))
    with pytest.raises(UserError, match=r"a\.nc: has no image1/image_data, .*KNMI .*--source"):
        open_source(path, load_rules("knmi"))


@pytest.mark.parametrize(
    ("library", "source", "extra"),
    [("rioxarray", "fmi", "geotiff"), ("cfgrib", "era5-grib", "grib"), ("pyproj", "odim", "odim")],
)
def test_a_library_that_is_not_installed(make, tmp_path, monkeypatch, library, source, extra):
    counts = np.ones((2, 3), "u1")
    path = {
        "fmi": lambda: make.geotiff(tmp_path / "202001010000_x.tif", counts),
        "era5-grib": lambda: make.grib(tmp_path / "a.grib", [{"paramId": 228, "values": counts * 1e-3}]),
        "odim": lambda: make.odim(tmp_path / "a.h5", {"RATE": (counts, 1.0, 0.0)}),
    }[source]()
    monkeypatch.setitem(sys.modules, library, None)  # what an import finds then is an ImportError
    with pytest.raises(UserError, match=rf"needs {library}: pip install 'finescale\[{extra}\]'"):
        open_source(path, load_rules(source))


def test_no_file_stays_open(make, read, tmp_path):
    folder = Path(f"/proc/{os.getpid()}/fd")
    if not folder.is_dir():
        pytest.skip("no /proc here")
    counts = np.ones((2, 3), "u1")
    data = make.dataset(2)
    data.to_netcdf(tmp_path / "three.nc", engine="scipy")
    make.save(data, tmp_path / "four.nc")
    make.geotiff(tmp_path / "202001010000_x.tif", counts)
    make.knmi(tmp_path / "a.h5", counts)
    make.grib(tmp_path / "a.grib", [{"paramId": 228, "values": counts * 1e-3}])
    sources = []
    for path in map(str, tmp_path.iterdir()):
        sources.append(open_source(path, load_rules("fmi") if path.endswith(".tif") else None))
        read(sources[-1])
    opened = [os.readlink(link) for link in folder.iterdir() if os.path.lexists(link)]
    assert not [path for path in opened if path.startswith(str(tmp_path))]
