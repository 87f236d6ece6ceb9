"""HyperPyYAML comes out as plain data, and no file can run code, hang or exhaust memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosyvoice_core.checkpoint import plain_yaml
from cosyvoice_core.checkpoint.plain_yaml import read_plain_yaml
from cosyvoice_core.errors import CheckpointError


def read(folder: Path, text: str) -> dict[str, object]:
    path = folder / "model.yaml"
    path.write_text(text, encoding="utf-8")
    return read_plain_yaml(path)


def test_scalars_have_their_types(tmp_path: Path) -> None:
    values = read(
        tmp_path,
        "a: 5\nb: -0.5\nc: 1e-06\nd: True\ne: 'True'\nf:\ng: word\nh: '7'\ni: [1, [2, x]]\nj: ''\n1: one\non: 2\n",
    )
    assert values == {
        "a": 5,
        "b": -0.5,
        "c": 1e-6,
        "d": True,
        "e": "True",
        "f": None,
        "g": "word",
        "h": "7",
        "i": [1, [2, "x"]],
        "j": "",
        "1": "one",
        "on": 2,
    }


def test_local_tags_leave_plain_data(tmp_path: Path) -> None:
    values = read(
        tmp_path,
        """
seed: !apply:random.seed [1986]
opener: !name:some.module.function
model: !new:some.module.Class
    width: 4
    part: !new:some.other.Class {depth: 2}
sizes: !tuple [1, 2]
module: !module:os.path
""",
    )
    assert values == {
        "seed": [1986],
        "opener": None,
        "model": {"width": 4, "part": {"depth": 2}},
        "sizes": [1, 2],
        "module": None,
    }


def test_references_are_resolved(tmp_path: Path) -> None:
    values = read(
        tmp_path,
        """
late: !ref <model[sizes][1]>
chunk: 25
ratio: 2
frames: !ref <chunk> * <ratio>
scaled: !ref 0.5 * <frames>
model: !new:a.B
    sizes: [3, !ref <chunk>]
    again: !ref <frames>
folder: /data
file: !ref <folder>/model_<ratio>.pt
whole: !ref <model>
empty: ''
path: !ref <empty>
copy: !copy <model[sizes]>
""",
    )
    assert values["late"] == 25
    assert values["frames"] == 50 and isinstance(values["frames"], int)
    assert values["scaled"] == 25.0
    assert values["model"] == {"sizes": [3, 25], "again": 50}
    assert values["whole"] == values["model"]
    assert values["file"] == "/data/model_2.pt"
    assert values["path"] == ""
    assert values["copy"] == [3, 25]


def test_repeated_keys_and_anchors_take_the_last_value(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &x 1\nb: &x 2\nc: *x\na: 3\n") == {"a": 3, "b": 2, "c": 2}


def test_merge_key_gives_defaults(tmp_path: Path) -> None:
    values = read(tmp_path, "base: &b {x: 1, y: 2}\nmore: {y: 3, <<: *b}\n")
    assert values["more"] == {"y": 3, "x": 1}


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGED_LAUGHS = (
    "m0: &m0 {"
    + ", ".join(f"k{i}: {i}" for i in range(9))
    + "}\n"
    + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
)
REFERRED_LAUGHS = "t0: xxxxxxxxxx\n" + "".join(f"t{i}: !ref {f'<t{i - 1}>' * 10}\n" for i in range(1, 20))
REFERRED_NUMBERS = "n0: 999999\n" + "".join(f"n{i}: !ref {' * '.join([f'<n{i - 1}>'] * 100)}\n" for i in range(1, 20))
CHAIN = "".join(f"c{i}: !ref <c{i + 1}>\n" for i in range(5000)) + "c5000: 1\n"
NESTED_CHAIN = "".join(f"c{i}: [!ref <c{i + 1}>]\n" for i in range(2000)) + "c2000: 1\n"

REFUSED = {
    "python object": ("a: !!python/object/apply:os.system ['touch {mark}']", "plain data"),
    "python name": ("a: !!python/name:os.system", "plain data"),
    "python by full tag": ("a: !<tag:yaml.org,2002:python/object/new:os.system> ['touch {mark}']", "plain data"),
    "foreign tag": ("a: !<tag:example.org,2000:thing> 1", "plain data"),
    "not closed": ("a: [1, 2", "not readable as YAML"),
    "tab indentation": ("a:\n\tb: 1", "not readable as YAML"),
    "list at the top": ("- 1\n- 2", "expected keys and values"),
    "empty file": ("", "expected keys and values"),
    "several documents": ("a: 1\n---\nb: 2", "several YAML documents"),
    "key that is a list": ("? [1, 2]\n: 3", "not a plain word"),
    "key that is a reference": ("a: b\n!ref <a> : 3", "not a plain word"),
    "alias without anchor": ("a: *b", "alias"),
    "alias inside its own anchor": ("a: &a [*a]", "alias"),
    "billion laughs": (LAUGHS, "expands"),
    "merged billion laughs": (MERGED_LAUGHS, "expands"),
    "referred billion laughs": (REFERRED_LAUGHS, "characters"),
    "referred huge number": (REFERRED_NUMBERS, "sensible size"),
    "too large": ("a: '" + "x" * plain_yaml.MAX_BYTES + "'", "larger than"),
    "too deep": ("a: " + "[" * 5000 + "]" * 5000, "deeper"),
    "long chain of references": (CHAIN, "in a row"),
    "deep nest of references": (NESTED_CHAIN, "levels|in a row"),
    "reference to nothing": ("a: !ref <b[c]>", "'b', which is not there"),
    "reference to itself": ("a: !ref <b>\nb: !ref <a>", "leads back to itself"),
    "reference to what contains it": ("a: {b: !ref <a>}", "contains it"),
    "reference with code": ("a: !ref <__import__('os').system>", "not there|not of the form"),
    "text around a list": ("a: [1]\nb: !ref x/<a>", "puts a list into a text"),
    "merge of a number": ("a: {<<: 3}", "'<<' needs a mapping"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_hostile_and_broken_files_quickly(tmp_path: Path, name: str) -> None:
    text, problem = REFUSED[name]
    mark = tmp_path / "was_run"
    before = time.perf_counter()
    with pytest.raises(CheckpointError, match=problem) as caught:
        read(tmp_path, text.replace("{mark}", str(mark)))
    assert time.perf_counter() - before < 10
    assert "model.yaml" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not mark.exists()


def test_apply_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    assert read(tmp_path, f"a: !apply:os.system ['touch {mark}']") == {"a": [f"touch {mark}"]}
    assert not mark.exists()


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.yaml: cannot be read"):
        read_plain_yaml(tmp_path / "absent.yaml")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_plain_yaml(tmp_path)
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81abc")
    with pytest.raises(CheckpointError, match=r"binary\.yaml: not UTF-8"):
        read_plain_yaml(path)


YAML_PIECES = ["a", "b", ":", " ", "\n", "- ", "[", "]", "{", "}", "!ref ", "<a>", "<b[a]>", "&x ", "*x", "'", '"']
YAML_PIECES += ["!new:m.C ", "!!int ", "!!timestamp ", "1", "1e9", "|", ">", "?", "#", "%", "---", "...", "<<: ", "*"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(YAML_PIECES), max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_gives_a_dict_or_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        values = read_plain_yaml(path)
    except CheckpointError as error:
        assert "model.yaml" in str(error)
    else:
        assert all(isinstance(key, str) for key in values)
