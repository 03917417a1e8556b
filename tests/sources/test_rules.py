import numpy as np
import pytest

from pipeline import UserError
from pipeline.sources.readers import name_times
from pipeline.sources.rules import SourceRules, load_rules, packaged

ALL = {"comephore", "era5-arco", "era5-grib", "fmi", "knmi", "odim"}


def test_packaged_rules_are_complete():
    assert set(packaged()) == ALL
    for name, description in packaged().items():
        rules = load_rules(name)
        assert rules.description == description
        assert rules.name == "precipitation"
        assert len(description) < 110


@pytest.mark.parametrize("field", list(SourceRules.model_fields))
def test_every_key_is_described(field):
    assert SourceRules.model_fields[field].description


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "own.yml"
    path.write_text("description: mine\nmissing: -1\nfiles: a.nc\naccumulation: 5min\nselect: {level: 850}\n")
    rules = load_rules(str(path))
    assert (rules.missing, rules.files, rules.interval_seconds) == ((-1,), ("a.nc",), 300)
    assert rules.select == {"level": 850}
    assert load_rules(f"file://{path}") == rules


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5min", 300), ("1h", 3600), ("1 d", 86400), ("0.5h", 1800)]
)
def test_intervals(text, seconds):
    assert SourceRules(description="", accumulation=text).interval_seconds == seconds


def test_an_unknown_name_lists_the_others(tmp_path):
    with pytest.raises(
        UserError, match=r"source 'kmni': there is none.* comephore, .*, odim, or give a file"
    ):
        load_rules("kmni")
    with pytest.raises(UserError, match=r"source .*/none\.yaml: cannot be read \(no such file\)"):
        load_rules(str(tmp_path / "none.yaml"))


GEOTIFF = "reader: geotiff\ntime: {pattern: '(.*)', format: '%Y'}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not YAML"),
        ("- knmi", "expected rules such as"),
        ("reader: grid", "description: Field required$"),
        ("description: a\nreder: grid", r"reder: unknown key; known here: description, reader, variable, "),
        ("description: a\ntime: {patern: a}", r"time\.patern: unknown key; known here: pattern, format, "),
        ("description: a\ndbz: {c: 1}", r"dbz\.c: unknown key; known here: a, b, threshold"),
        (
            "description: a\ndynamics: {u: {level: 1}}",
            r"dynamics\.u\.variable: Field required \(and 1 more\)",
        ),
        (
            "description: a\nreader: tiff",
            "reader = 'tiff': Input should be 'grid', 'geotiff', 'odim' or 'hdf5'",
        ),
        ("description: a\naccumulation: 5 minutes", "accumulation = '5 minutes': write a number and s, min"),
        ("description: a\naccumulation: 0h", "accumulation = '0h': write a number"),
        ("description: a\nmissing: [x]", r"missing\.0 = 'x': Input should be a valid number"),
        ("description: a\nvalid_range: [5, 5]", r"valid_range = \[5, 5\]: the least value comes first"),
        ("description: a\ntime: {pattern: '(', format: a}", r"time\.pattern = '\(': no regular expression"),
        ("description: a\ntime: {pattern: a, format: a}", r"time\.pattern = 'a': needs one group"),
        ("description: a\ntime: {pattern: (a)}", "time: pattern and format go together"),
        ("description: a\ntime: {stamp: start}", r"time\.stamp: start needs accumulation"),
        ("description: a\nreader: geotiff", "a GeoTIFF does not tell its time"),
        (f"description: a\n{GEOTIFF}variable: b", "variable is for reader: grid or odim"),
        (f"description: a\n{GEOTIFF}select: {{level: 1}}", r"can only name a band"),
        (f"description: a\n{GEOTIFF}statics: {{a: {{variable: b}}}}", "are for reader: grid"),
        ("description: a\nreader: hdf5", "the section hdf5 and reader: hdf5 go together"),
        ("description: a\nreader: odim\nselect: {a: 1}", "select is for reader: grid"),
        ("description: a\ndbz: {}\nunits: mm", "leave units out"),
    ],
)
def test_a_fault_is_one_line_with_file_key_and_reason(tmp_path, text, message):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_rules(str(path))
    assert str(caught.value).startswith(f"source {path}: ")
    assert "\n" not in str(caught.value)


def timed(pattern, form, **changes):
    return SourceRules.model_validate(
        {"description": "a", "time": {"pattern": pattern, "format": form} | changes, "accumulation": "1h"}
    )


@pytest.mark.parametrize(
    ("name", "rules", "expected"),
    [
        ("gs://bucket/201705091045_a.tif", timed(r"^(\d{12})_", "%Y%m%d%H%M"), "2017-05-09T10:45:00"),
        ("/2016/a_20170509.nc", timed(r"_(\d{8})", "%Y%m%d", stamp="start"), "2017-05-09T01:00:00"),
        ("a_09-Mar-2017.nc", timed(r"_(.*)\.nc", "%d-%b-%Y"), "2017-03-09T00:00:00"),
        ("a_2017-03-09T02+0200.nc", timed(r"_(.*)\.nc", "%Y-%m-%dT%H%z"), "2017-03-09T00:00:00"),
        ("a_20171399.nc", timed(r"_(\d{8})", "%Y%m%d"), None),
        ("20170509/a.nc", timed(r"(\d{8})", "%Y%m%d"), None),
        ("a_20170509.nc", SourceRules(description="a"), None),
    ],
)
def test_times_by_name(name, rules, expected):
    times = name_times(name, rules)
    if expected is None:
        assert times is None
    else:
        assert times.dtype == np.dtype("datetime64[s]")
        assert times.astype(str).tolist() == [expected]
