import pytest
import torch
from support import EVERY_CELL, SEVERAL_INPUTS

from rindle import CELLS, RindleError, cell
from rindle.cells import linear
from rindle.program.program import step
from rindle.program.tracer import trace

# What schemes refer to: element-wise paths; narrow codes; constant vectors; (gate.source) products.
GOLDEN = {
    "lstm": (
        "x h c i f g o f.sigmoid i.sigmoid g.tanh o.sigmoid c.tanh",
        "x.code h.code",
        "",
        "i.x f.x g.x o.x i.h f.h g.h o.h",
    ),
    "convlstm": (
        "x h c i f g o f.sigmoid i.sigmoid g.tanh o.sigmoid c.tanh",
        "x.code h.code",
        "",
        "i.x f.x g.x o.x i.h f.h g.h o.h",
    ),
    "convlstm_peephole": (
        "x h c wi wf g wo p_f.mul f f.sigmoid p_i.mul i i.sigmoid g.tanh p_o.mul o o.sigmoid c.tanh",
        "x.code h.code",
        "p_f p_i p_o",
        "wi.x wf.x g.x wo.x wi.h wf.h g.h wo.h",
    ),
    "gru": (
        "x h r z nx nh r.sigmoid r.sigmoid.mul n z.sigmoid n.tanh",
        "x.code h.code",
        "",
        "r.x z.x r.h z.h nx.x nh.h",
    ),
    "sru": (
        "x c u wf wr v_f.mul f v_r.mul r f.sigmoid r.sigmoid h",
        "x.code",
        "v_f v_r",
        "u.x wf.x wr.x",
    ),
    "lstm_peephole": (
        "x h c wi wf g wo p_f.mul f f.sigmoid p_i.mul i i.sigmoid g.tanh p_o.mul o o.sigmoid c.tanh",
        "x.code h.code",
        "p_f p_i p_o",
        "wi.x wf.x g.x wo.x wi.h wf.h g.h wo.h",
    ),
    "lstm_cifg": (
        "x h c i g o i.sigmoid g.tanh o.sigmoid c.tanh",
        "x.code h.code",
        "",
        "i.x g.x o.x i.h g.h o.h",
    ),
    "lstm_projection": (
        "x h c i f g o f.sigmoid i.sigmoid g.tanh o.sigmoid c.tanh m r",
        "x.code h.code m.code",
        "",
        "i.x f.x g.x o.x i.h f.h g.h o.h r.m",
    ),
    "lstm_peephole_cifg": (
        "x h c wi g wo p_i.mul i i.sigmoid g.tanh p_o.mul o o.sigmoid c.tanh",
        "x.code h.code",
        "p_i p_o",
        "wi.x g.x wo.x wi.h g.h wo.h",
    ),
    "lstm_peephole_projection": (
        "x h c wi wf g wo p_f.mul f f.sigmoid p_i.mul i i.sigmoid g.tanh p_o.mul o o.sigmoid c.tanh m r",
        "x.code h.code m.code",
        "p_f p_i p_o",
        "wi.x wf.x g.x wo.x wi.h wf.h g.h wo.h r.m",
    ),
    "lstm_cifg_projection": (
        "x h c i g o i.sigmoid g.tanh o.sigmoid c.tanh m r",
        "x.code h.code m.code",
        "",
        "i.x g.x o.x i.h g.h o.h r.m",
    ),
    "lstm_peephole_cifg_projection": (
        "x h c wi g wo p_i.mul i i.sigmoid g.tanh p_o.mul o o.sigmoid c.tanh m r",
        "x.code h.code m.code",
        "p_i p_o",
        "wi.x g.x wo.x wi.h g.h wo.h r.m",
    ),
    "gru_reset_before": (
        "x h r z r.sigmoid rh n z.sigmoid n.tanh",
        "x.code h.code rh.code",
        "",
        "r.x z.x r.h z.h n.x n.rh",
    ),
    "ligru": (
        "x h z a z.sigmoid a.clip",
        "x.code h.code",
        "",
        "z.x a.x z.h a.h",
    ),
    "rnn_tanh": (
        "x h a",
        "x.code h.code",
        "",
        "a.x a.h",
    ),
    "rnn_relu": (
        "x h a a.clip",
        "x.code h.code",
        "",
        "a.x a.h",
    ),
    "sru_highway": (
        "x c u wf wr wx v_f.mul f v_r.mul r f.sigmoid r.sigmoid h",
        "x.code",
        "v_f v_r",
        "u.x wf.x wr.x wx.x",
    ),
    "sru_projection": (
        "x c p u wf wr v_f.mul f v_r.mul r f.sigmoid r.sigmoid h",
        "x.code p.code",
        "v_f v_r",
        "p.x u.p wf.p wr.p",
    ),
    "sru_rescale": (
        "x c u wf wr v_f.mul f v_r.mul r f.sigmoid skip r.sigmoid h",
        "x.code",
        "v_f v_r alpha",
        "u.x wf.x wr.x",
    ),
    "sru_highway_projection": (
        "x c p u wf wr wx v_f.mul f v_r.mul r f.sigmoid r.sigmoid h",
        "x.code p.code",
        "v_f v_r",
        "p.x u.p wf.p wr.p wx.p",
    ),
    "sru_projection_rescale": (
        "x c p u wf wr v_f.mul f v_r.mul r f.sigmoid skip r.sigmoid h",
        "x.code p.code",
        "v_f v_r alpha",
        "p.x u.p wf.p wr.p",
    ),
    "mingru": (
        "x h z g z.sigmoid",
        "x.code",
        "",
        "z.x g.x",
    ),
    "fastgrnn": (
        "x h a z z.sigmoid c c.tanh new kept rest",
        "x.code h.code",
        "b_z b_c zeta nu",
        "a.x a.h",
    ),
    "sru_beside": (
        "x s c u wf wr v_f.mul f v_r.mul r f.sigmoid r.sigmoid h",
        "x.code",
        "v_f v_r",
        "u.x wf.x wr.x",
    ),
    "sru_beside_rescale": (
        "x s c u wf wr v_f.mul f v_r.mul r f.sigmoid skip r.sigmoid h",
        "x.code",
        "v_f v_r alpha",
        "u.x wf.x wr.x",
    ),
    "linear": ("x y", "x.code", "", "y.x"),
}


@pytest.mark.parametrize("name", [*EVERY_CELL, *SEVERAL_INPUTS, "linear"])
def test_path_names(name):
    program = (EVERY_CELL | SEVERAL_INPUTS | {"linear": linear})[name].program
    products = [f"{gate}.{source}" for gate, source in program.blocks]
    found = (program.paths, program.codes, program.vectors, products)
    assert tuple(" ".join(names) for names in found) == GOLDEN[name]


def test_every_path_is_written_once_before_it_is_read(cell):
    program = EVERY_CELL[cell].program
    written = {*program.inputs, *program.vectors, *(state for state, _ in program.states)}
    for op in program.ops:
        assert set(op.reads) <= written
        assert not set(op.out) & written
        written |= set(op.out)
    assert written == set(program.sizes)


def test_parameter_layout_has_every_block(cell):
    """Each product's block, each bias and each vector stands in a parameter."""
    one = EVERY_CELL[cell]
    blocks = [block for rows in one.layout.values() for block in rows]
    wanted = {f"{gate}.{source}" for gate, source in one.program.blocks} | set(one.program.vectors)
    assert wanted | {gate for op in one.program.affines for gate in op.biased} == set(blocks)
    assert EVERY_CELL[cell].doc


def traced(function, *states, **options):
    return cell(states=states, **options)(function).program


def test_default_layout_stacks_one_matrix_per_source():
    @cell(states=("h",))
    def elman(n, x, h):
        a, b = n.affine("a b", x, h)
        return n.tanh(n.mul(n.add(a, b), n.affine("c", x, bias=False)))

    assert elman.layout == {
        "weight_x": ("a.x", "b.x", "c.x"),
        "weight_h": ("a.h", "b.h"),
        "bias": ("a", "b"),
    }


# What a cell may do to its result, and the path that then holds the state or the output.
def output_is_the_old_state(n, x, h):
    return h, n.affine("a", x, h)


def a_gate_is_the_state(n, x, h):
    return n.affine("a", x, h)


def one_path_is_two_states(n, x, h, c):
    new = n.tanh(n.add(n.affine("a", x, h), c))
    return new, new


def states_swap(n, x, h, c):
    return n.affine("a", x, h, c), c, h


def clipped_state(n, x, h):
    return n.relu(n.affine("a", x, h))


def input_is_the_state(n, x, h):
    return n.affine("a", x, h), x


@pytest.mark.parametrize(
    "function, states, width, following, output",
    [
        (output_is_the_old_state, "h", "I", ["h.next requantize a"], "h"),
        (a_gate_is_the_state, "h", "I", ["h.next requantize a"], "h.next"),
        (one_path_is_two_states, "hc", "I", ["h.next table a.add", "c.next requantize h.next"], "h.next"),
        (states_swap, "hc", "I", ["h.next requantize c", "c.next requantize h"], "a"),
        (clipped_state, "h", "I", ["h.next requantize a.clip"], "h.next"),
        (input_is_the_state, "h", "H", ["h.next requantize x"], "a"),
    ],
)
def test_a_state_has_a_path_of_its_own(function, states, width, following, output):
    program = traced(function, *states, width=width)
    made = {op.out[0]: f"{op.out[0]} {op.kind} {' '.join(op.args)}" for op in program.ops}
    if function is one_path_is_two_states:
        assert program.sizes.keys() >= {"h.next", "c.next"}
    assert [made[path] for _, path in program.states] == following
    assert program.output == output


def test_old_and_new_state_may_both_be_multiplied():
    program = traced(lambda n, x, h: (n.affine("y", new := n.tanh(n.affine("a", x, h))), new), "h")
    assert program.codes == ("x.code", "h.code", "h.next.code")
    program = traced(lambda n, x, h: (n.affine("y", h, new := n.tanh(n.affine("a", x, h))), new), "h")
    assert [block for block in program.blocks if block[0] == "y"] == [("y", "h"), ("y", "h.next")]


def test_an_input_has_one_code_however_many_products_read_it():
    program = traced(lambda n, x, h: n.add(n.affine("a", x, h), n.affine("b", h, x)), "h")
    assert program.codes == ("x.code", "h.code")
    assert [op.kind for op in program.ops].count("requantize") == 2


def no_such_gate(n, x, h):
    return n.affine("a b", x, h, bias="c")


def branch(n, x, h):
    return n.tanh(x) if n.affine("a", x, h) else h


def operator(n, x, h):
    return n.affine("a", x, h) + h


def unpack_one(n, x, h):
    (a,) = n.affine("a", x, h)
    return a


def number(n, x, h):
    return n.mul(n.affine("a", x, h), 2.0)


def sizes_differ(n, x, h):
    return n.add(x, n.affine("a", x, h))


def same_gate_twice(n, x, h):
    return n.add(n.affine("a", x), n.affine("a", h))


def same_operation_twice(n, x, h):
    a = n.affine("a", x, h)
    return n.add(n.tanh(a), n.tanh(a))


def renamed_gate(n, x, h):
    return n.path("b", n.affine("a", x, h))


def renamed_state(n, x, h):
    return n.add(n.path("b", h), n.affine("a", x, h))


def unused(n, x, h):
    n.affine("b", x)
    return n.affine("a", x, h)


def too_many(n, x, h):
    a = n.affine("a", x, h)
    return a, a, a


def not_a_path(n, x, h):
    n.affine("a", x, h)
    return 0.0


def bounds_the_wrong_way(n, x, h):
    return n.clip(n.affine("a", x, h), 1, -1)


def bounds_not_a_number(n, x, h):
    return n.clip(n.affine("a", x, h), float("nan"), 1)


def dotted_gate(n, x, h):
    return n.affine("a.b", x, h)


def dotted_name(n, x, h):
    return n.tanh(n.path("a.b", n.add(n.affine("a", x), h)))


def dotted_vector(n, x, h):
    return n.add(n.vector("bias.y"), n.affine("a", x, h))


def constants_alone(n, x, h):
    return n.add(n.add(n.vector("v"), n.vector("w")), n.affine("a", x, h))


def constant_in_a_product(n, x, h):
    return n.affine("a", x, h, n.vector("v"))


def constant_state(n, x, h):
    return n.affine("a", x, h), n.vector("v")


def constant_table(n, x, h):
    return n.add(n.tanh(n.vector("v")), n.affine("a", x, h))


def nothing_to_multiply(n, x, h):
    return n.add(n.affine("a"), h)


def input_twice(n, x, h):
    return n.affine("a", x, x, h)


@pytest.mark.parametrize(
    "function, words",
    [
        (no_such_gate, "bias='c' names a gate that the affine 'a b' does not have"),
        (branch, "no truth value"),
        (operator, "paths have no operators; use n.add"),
        (unpack_one, "an affine with one gate returns one path"),
        (number, "n.mul takes paths of this cell, not 2.0"),
        (sizes_differ, r"operands of n.add differ in size \(x: I, a: H\)"),
        (same_gate_twice, "two paths named 'a': name one with n.path"),
        (same_operation_twice, "two paths named 'a.tanh'"),
        (renamed_gate, "'a' has its name already and cannot become 'b'"),
        (renamed_state, "'h' has its name already"),
        (unused, "makes the path 'b' and never uses it"),
        (too_many, "must return its output and 1 states .* not 3 paths"),
        (not_a_path, "n.return takes paths of this cell, not 0.0"),
        (bounds_the_wrong_way, "lo <= hi, not 1 and -1"),
        (bounds_not_a_number, "lo <= hi, not nan"),
        (dotted_gate, "name must be .* not 'a.b'"),
        (dotted_name, "name must be .* not 'a.b'"),
        (dotted_vector, "name must be .* not 'bias.y'"),
        (constants_alone, "n.add of the constant v, w"),
        (constant_in_a_product, "n.affine of the constant v"),
        (constant_state, "n.return of the constant v"),
        (constant_table, "n.table of the constant v"),
        (nothing_to_multiply, "the affine 'a' needs at least one input"),
        (input_twice, "the affine 'a' needs at least one input, and each once"),
    ],
)
def test_what_is_not_a_cell(function, words):
    with pytest.raises(RindleError, match=words):
        traced(function, "h")


@pytest.mark.parametrize("states, names", [(("h", "c"), "n, x, h, c"), (("c",), "n, x, c"), (("x", "h"), "n, x, x, h")])
def test_arguments_must_be_the_states(states, names):
    def wrong(n, x, h):
        return h

    with pytest.raises(RindleError, match=rf"'wrong' must take \({names}\), not \(n, x, h\)"):
        traced(wrong, *states)


def test_a_cell_may_have_several_inputs_and_states_of_other_sizes():
    def masked(n, x, mask, h, p):
        h_new = n.tanh(n.affine("g", x, h, p))
        return n.mul(mask, h_new), h_new, n.affine("q", h_new, size="P")

    program = trace(masked, "masked", ("h", "p"), sizes={"mask": "H", "p": "P"}).with_sizes(I=3, H=5, P=2)
    assert program.inputs == ("x", "mask")
    assert [program.sizes[path] for path in ("x", "mask", "h", "p", "p.next")] == [3, 5, 5, 2, 2]
    with pytest.raises(RindleError, match=r"sizes for \['nothing'\], which are neither inputs nor states"):
        trace(masked, "masked", ("h", "p"), sizes={"nothing": "P"})


def test_paths_of_another_cell_are_refused():
    stolen = []

    def first(n, x, h):
        stolen.append(x)
        return n.affine("a", x, h)

    def second(n, x, h):
        return n.affine("a", stolen[0], h)

    traced(first, "h")
    with pytest.raises(RindleError, match=r"n\.affine takes paths of this cell"):
        traced(second, "h")


class Symbols:
    """A numerics that writes formulas: the interpreter needs nothing else."""

    def __init__(self):
        self.vectors = {"v_f": "v_f", "v_r": "v_r"}

    def affine(self, op, *codes):
        return tuple(f"{gate}({', '.join(codes)})" for gate in op.out)

    def hold(self, code, v, held):
        return f"hold({v}, {held})"

    def __getattr__(self, kind):
        return lambda op, *args: f"{op.function or kind}({', '.join(args)})"


def test_the_interpreter_runs_the_equation():
    program = CELLS["gru"].program
    h = "lerp(sigmoid(z({x}, {h})), h, tanh(add(nx({x}), mul(sigmoid(r({x}, {h})), nh({h})))))"
    wanted = h.format(x="requantize(x)", h="requantize(h)")
    assert step(program, Symbols(), "x", {"h": "h"}, {}) == (wanted, {"h": wanted}, {})


def test_the_interpreter_holds_codes():
    y, states, held = step(CELLS["sru"].program, Symbols(), "x", {"c": "c"}, {"x.code": "old"})
    assert held == {"x.code": "hold(requantize(x), old)"}
    assert "u(hold(requantize(x), old))" in y and "wf(hold(requantize(x), old))" in states["c"]


def test_sizes_are_bound_by_name():
    program = CELLS["lstm"].program.with_sizes(I=3, H=5)
    assert program.sizes["x"] == program.sizes["x.code"] == 3
    assert {program.sizes[path] for path in program.paths if path != "x"} == {5}
    assert program.block_shape("i.x") == (5, 3) and program.block_shape("i.h") == (5, 5)


def test_a_derived_input_has_its_block():
    """Cho's GRU multiplies r * h, a path that nobody named."""

    @cell(states=("h",))
    def reset_before(n, x, h):
        r, z = n.affine("r z", x, h)
        return n.lerp(n.sigmoid(z), h, n.tanh(n.affine("c", x, n.mul(n.sigmoid(r), h))))

    from rindle import Recurrent

    module = Recurrent(reset_before, 3, 4)
    assert dict(module.named_parameters())["weight_r_sigmoid_mul_l0"].shape == (4, 4)
    y, _ = module(torch.zeros(2, 1, 3))
    assert y.shape == (2, 1, 4)
