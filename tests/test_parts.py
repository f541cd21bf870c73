"""Several models in one file: what is written, what each part does, and that both readers refuse what is wrong."""

import hashlib
import json
import pickle
from copy import deepcopy

import numpy as np
import pytest
from hostile import good, good2, join, parts
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli_verbs import call  # noqa: F401  a fixture

import rindle
from rindle import RindleError
from rindle import _core as core
from rindle.file.container import dumps, dumps_parts, loads, loads_all

NAMES = ("encoder", "the predictor")


def models() -> dict:
    return {name: rindle.Model(loads(data)) for name, data in zip(NAMES, (good(), good2()))}


def several() -> bytes:
    return dumps_parts({name: loads(data) for name, data in zip(NAMES, (good(), good2()))})


def identity(document: dict) -> str:
    """docs/format.md, "Parts", read a second time."""
    text = "".join(f"{part['name']}\0{part['document']['id']}\0" for part in document["parts"])
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_part_is_the_model_that_it_was():
    data = several()
    document, tensors = parts(data)
    assert sorted(document) == ["id", "needs", "parts", "version"]
    assert (document["version"], document["needs"], document["id"]) == (4, ["parts"], identity(document))
    for (name, one), alone in zip(loads_all(data).items(), (good(), good2())):
        assert dumps(one) == alone
        own, own_tensors = parts(alone)
        assert {"name": name, "document": own} in document["parts"]
        assert all(np.array_equal(tensors[f"{name}/{key}"], value) for key, value in own_tensors.items())
        assert core.Model(data, None, name).id == core.Model(alone, None).id
    assert dumps_parts(loads_all(data)) == data


def test_load_gives_each_part_and_save_puts_them_back(tmp_path):
    path = tmp_path / "m.rindle"
    rindle.save(models(), path)
    model = rindle.load(path, kernel="portable")
    assert isinstance(model, rindle.Model) and model.data == path.read_bytes() == several()
    assert tuple(model.parts) == NAMES and model.kernel == model.part("encoder").kernel == "portable"
    x = np.random.default_rng(0).standard_normal((2, 6, 5)).astype(np.float32)
    wanted = models()["encoder"].run(x)
    np.testing.assert_array_equal(model.part("encoder").run(x), wanted)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).part("encoder").run(x), wanted)
    dense = model.part("encoder").with_thresholds({"rnn.l0/x": None})
    rindle.save({**model.parts, "encoder": dense}, path)
    changed = rindle.load(path)
    assert changed.part("encoder").id == dense.id and changed.part(NAMES[1]).id == model.part(NAMES[1]).id
    assert len({model.id, changed.id, dense.id}) == 3 and "encoder" in repr(model)
    rindle.save(changed, path)
    assert path.read_bytes() == changed.data
    assert rindle.load(path).id == changed.id


def test_the_id_of_a_file_tells_names_and_order_apart():
    one, other = (loads(data) for data in (good(), good2()))
    files = [{"a": one, "b": other}, {"b": other, "a": one}, {"a": other, "b": one}, {"a": one, "c": other}]
    assert len({json.dumps(parts(dumps_parts(file))[0]["id"]) for file in files}) == 4


USES = {
    "run": lambda m: m.run(np.zeros((1, 5), np.float32)),
    "run_codes": lambda m: m.run_codes(np.zeros((1, 5), np.int16)),
    "stream": lambda m: m.stream(),
    "measure": lambda m: m.measure(np.zeros((1, 5), np.float32)),
    "activity": lambda m: m.activity(np.zeros((1, 5), np.float32)),
    "replay": lambda m: m.replay(),
    "thresholds": lambda m: m.thresholds,
    "with_thresholds": lambda m: m.with_thresholds({}),
    "with_provenance": lambda m: m.with_provenance({}),
    "input_size": lambda m: m.input_size,
    "vocabulary": lambda m: m.vocabulary,
    "output_size": lambda m: m.output_size,
    "output_frames": lambda m: m.output_frames(3),
    "is_sequence": lambda m: m.is_sequence,
    "is_float": lambda m: m.is_float,
    "artifact": lambda m: m.artifact,
    "export": lambda m: __import__("rindle.export.c", fromlist=["to_c"]).to_c(m, "nowhere"),
}


@pytest.mark.parametrize("use", USES)
def test_what_one_model_does_is_refused_with_the_parts_names(use, tmp_path):
    rindle.save(models(), tmp_path / "m.rindle")
    with pytest.raises(RindleError, match=r"the parts encoder, the predictor; take one: model.part\('encoder'\)"):
        USES[use](rindle.load(tmp_path / "m.rindle"))


def refused(words: str, function, *arguments):
    with pytest.raises(RindleError) as error:
        function(*arguments)
    assert words in str(error.value), error.value


def test_what_cannot_be_a_file_of_parts_is_refused(tmp_path):
    path, (one, other) = tmp_path / "m.rindle", models().values()
    refused("2..64 parts, not 1", rindle.save, {"a": one}, path)
    refused("2..64 parts, not 0", rindle.save, {}, path)
    refused("2..64 parts, not 65", rindle.save, {str(k): one for k in range(65)}, path)
    refused("'a/b'; a part's name", rindle.save, {"a/b": one, "c": other}, path)
    refused("''; a part's name", rindle.save, {"": one, "c": other}, path)
    refused("3; a part's name", rindle.save, {3: one, "c": other}, path)
    refused("at most 256 bytes together", rindle.save, {"a" * 250: one, "c": other}, path)
    refused("the part 'c' is a dict", rindle.save, {"a": one, "c": {}}, path)
    rindle.save({"a": one, "b": other}, path)
    refused("the part 'c' is a file of parts", rindle.save, {"a": one, "c": rindle.load(path)}, path)
    refused("no part 'c': there are a, b", rindle.load(path).part, "c")
    refused("no part 'c': this is one model", one.part, "c")
    refused("the parts a, b", loads, path.read_bytes())
    assert one.parts == {} and path.exists()


# ---------------------------------------------------------------------------------------------------------- hostile files


def spoiled(change) -> bytes:
    """The file after change(document, tensors), with an id that fits where it can."""
    document, tensors = parts(several())
    change(document, tensors)
    if "id" in document:
        try:
            document["id"] = identity(document)
        except (KeyError, TypeError, AttributeError):
            pass
    return join(document, {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


def entry(key, value, index=0):
    return lambda document, tensors: document["parts"][index].__setitem__(key, value)


def renamed(document, tensors):
    tensors["decoder/x"] = tensors.pop("encoder/golden/inputs")


def bare(document, tensors):
    tensors["bare"] = np.zeros(1, np.int16)


def of_a_part(key, value):
    return lambda document, tensors: document["parts"][0]["document"].__setitem__(key, value)


HOSTILE = {
    "parts missing": (["parts"], lambda document, tensors: document.pop("parts")),
    "parts an object": (["parts"], lambda document, tensors: document.update(parts={"encoder": {}})),
    "one part": (["parts"], lambda document, tensors: document["parts"].pop()),
    "no part": (["parts"], lambda document, tensors: document["parts"].clear()),
    "65 parts": (["parts"], lambda document, tensors: document.update(parts=document["parts"] * 33)),
    "a part that is a string": (["parts[0]"], lambda document, tensors: document.update(parts=["a", "b"])),
    "a name twice": (["parts[1].name"], entry("name", "encoder", 1)),
    "a name with a slash": (["parts[0].name"], entry("name", "en/coder")),
    "a name that is empty": (["parts[0].name"], entry("name", "")),
    "a name too long": (["parts[0].name"], entry("name", "n" * 257)),
    "a name that is a number": (["parts[0].name"], entry("name", 7)),
    "a name missing": (["parts[0]", "name"], lambda document, tensors: document["parts"][0].pop("name")),
    "a document missing": (["parts[0]", "document"], lambda document, tensors: document["parts"][0].pop("document")),
    "a document that is a list": (["parts[0].document"], entry("document", [])),
    "a part with another key": (["parts[0]", "colour"], entry("colour", 1)),
    "a file with another key": (["colour"], lambda document, tensors: document.update(colour=1)),
    "a file with provenance": (["provenance"], lambda document, tensors: document.update(provenance={})),
    "another need": (["needs"], lambda document, tensors: document.update(needs=["parts", "telepathy"])),
    "a need twice": (["needs"], lambda document, tensors: document.update(needs=["parts", "parts"])),
    "parts that no need names": (["needs"], lambda document, tensors: document.update(needs=[])),
    "version 3": ([], lambda document, tensors: document.update(version=3)),
    "a tensor of no part": (["decoder/x"], renamed),
    "a tensor without a part": (["bare"], bare),
    "a broken part": (["nodes", "0"], of_a_part("nodes", [])),
    "a part of a newer version": (["version", "update rindle"], of_a_part("version", 5)),
    "a part that holds parts": (["needs"], of_a_part("needs", ["parts"])),
    "a part of no nodes": (["output"], of_a_part("output", "nothing")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_both_readers_refuse(name):
    words, change = HOSTILE[name]
    data = spoiled(change)
    with pytest.raises(RindleError) as error:
        loads_all(data)
    assert all(word in str(error.value) for word in words), error.value
    with pytest.raises(ValueError) as error:
        core.Model(data, None, "encoder")
    assert all(word in str(error.value) for word in words), error.value


def test_ids_that_do_not_fit_are_found():
    document, tensors = parts(several())
    none = join({**document, "id": "x"}, tensors)
    with pytest.raises(RindleError, match="id does not match the parts"):
        loads_all(none)
    with pytest.raises(ValueError, match="id: must be 64 lower-case hex digits"):
        core.Model(none, None, "encoder")
    for steps, words in (
        (("id",), "id does not match the parts"),
        (("parts", 0, "document", "id"), "part 'encoder': id"),
    ):
        edited = deepcopy(document)
        here = edited
        for step in steps[:-1]:
            here = here[step]
        here[steps[-1]] = "0" * 64
        if len(steps) > 1:
            edited["id"] = identity(edited)
        with pytest.raises(RindleError, match=words):
            loads_all(join(edited, tensors))


def test_the_core_names_what_it_can_load():
    data = several()
    for arguments, words in (
        ((data, None), '"encoder", "the predictor": load one by its name'),
        ((data, None, "joiner"), 'no part "joiner"; it has "encoder", "the predictor"'),
        ((good(), None, "encoder"), 'one model and no part "encoder"'),
    ):
        with pytest.raises(ValueError) as error:
            core.Model(*arguments)
        assert words in str(error.value)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_raise_nothing_but_a_refusal(flips):
    data = bytearray(several())
    for place, mask in flips:
        data[int(place * len(data))] ^= mask
    try:
        names = list(loads_all(bytes(data)))
    except RindleError:
        names = []
    for name in {*NAMES, *names}:
        try:
            core.Model(bytes(data), None, name)
        except ValueError:
            assert name not in names


# -------------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def file(call, tmp_path):  # noqa: F811
    """In the folder of ``call``: m.rindle of two parts, and data for the first."""
    rindle.save(models(), tmp_path / "m.rindle")
    x = np.random.default_rng(0).standard_normal((6, 8, 5)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.zeros((6, 3), np.float32))
    np.save(tmp_path / "x.npy", x)
    return "m.rindle"


def test_verify_and_inspect_walk_the_parts(call, file, tmp_path):  # noqa: F811
    code, out, _ = call("verify", file, "--json")
    found = json.loads(out)
    assert code == 0 and found["equal"] and tuple(found["parts"]) == NAMES
    assert [one["id"] for one in found["parts"].values()] == [one.id for one in models().values()]
    code, out, _ = call("inspect", file, "--json")
    found = json.loads(out)
    assert found["id"] == rindle.load(file).id and tuple(found["parts"]) == NAMES
    assert found["parts"]["encoder"]["nodes"][0]["name"] == "rnn.l0"
    code, out, _ = call("inspect", file)
    assert "m.rindle, encoder" in out and "m.rindle, the predictor" in out
    document, tensors = parts(several())
    tensors["the predictor/golden/outputs"][0, 0] += 1
    (tmp_path / "bad.rindle").write_bytes(join(document, tensors))
    code, out, _ = call("verify", "bad.rindle", "--json")
    found = json.loads(out)
    assert code == 1 and not found["equal"] and found["parts"]["encoder"]["equal"]


NEED_ONE = {
    "eval": ("--data", "data.npz"),
    "delta": ("--theta", "rnn.l0/x=1"),
    "export": ("--to", "c", "-o", "c"),
    "run": ("--input", "x.npy", "--output", "y.npy"),
    "bench": ("--no-torch", "--slices", "2", "--frames", "3"),
    "inspect": ("--data", "data.npz"),
}


@pytest.mark.parametrize("verb", NEED_ONE)
def test_a_verb_for_one_model_wants_a_name(verb, call, file):  # noqa: F811
    code, _, err = call(verb, file, *NEED_ONE[verb])
    assert code == 2 and "the parts encoder, the predictor; name one with --part" in err
    code, _, err = call(verb, file, *NEED_ONE[verb], "--part", "joiner")
    assert code == 2 and "no part 'joiner': there are encoder, the predictor" in err


def test_a_verb_takes_the_part_that_is_named(call, file, tmp_path):  # noqa: F811
    one, x = models()["encoder"], np.load(tmp_path / "x.npy")
    assert call("run", file, *NEED_ONE["run"], "--part", "encoder")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), one.run(x))
    code, out, _ = call("eval", file, *NEED_ONE["eval"], "--part", "encoder", "--json")
    assert code == 0 and json.loads(out)["files"][0]["id"] == one.id
    assert call("bench", file, *NEED_ONE["bench"], "--part", "encoder")[0] == 0
    assert call("delta", file, *NEED_ONE["delta"], "--part", "encoder", "-o", "held.rindle")[0] == 0
    held = rindle.load("held.rindle")
    assert held.part("encoder").id == one.with_thresholds({"rnn.l0/x": 1}).id != one.id
    assert held.part(NAMES[1]).data == models()[NAMES[1]].data
    assert call("inspect", file, "--part", "encoder", "--diff", "held.rindle")[0] == 1
    assert call("inspect", file, "--part", NAMES[1], "--diff", "held.rindle")[0] == 0
    assert call("inspect", file, "--part", "encoder", "--data", "data.npz")[0] == 0
