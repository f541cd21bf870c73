"""What a capture refuses around a recurrence: every refusal names the operation and the module path, and says why."""

import pytest
import torch
import torch.nn.functional as F
from operations import Model, first
from support import FEATURES, sequences
from torch import nn

import rindle
from rindle import RindleError
from rindle.nn.capture.frontend import capture

X = torch.from_numpy(sequences(3, 9))


def conv(*arguments, **options):
    return {"conv": nn.Conv1d(6, 4, *arguments, **options)}


def turned(y):
    return y.transpose(1, 2)


# name: (function of (module, a recurrent layer's output [3, 9, 6]), modules, words)
REFUSED = {
    # layouts
    "time mixed with features": (lambda m, y: y.reshape(3, 54), {}, r"aten\.reshape\.default in the model's forward makes \[3, 54\] of \[3, 9, 6\], laid out \[B, T, F\]: that mixes rows or frames with features"),
    "features mixed with rows": (lambda m, y: y.permute(0, 2, 1).reshape(-1, 9), {}, r"mixes rows or frames with features"),
    "frames repeated": (lambda m, y: y.repeat(1, 2, 1), {}, r"aten\.repeat\.default .* repeats dimension 1 of \[B, T, F\]; only features"),
    "rows left out": (lambda m, y: y[1:], {}, r"aten\.slice\.Tensor .* takes 1:\d+ of dimension 0 of \[B, T, F\]; all rows must be kept"),
    "the last three frames": (lambda m, y: y[:, -3:], {}, r"aten\.slice\.Tensor .* takes -3: of the 9 frames; only as many frames as the input has"),
    "frames narrowed": (lambda m, y: y.narrow(1, 0, 4), {}, r"aten\.narrow\.default .* takes a part of dimension 1 of \[B, T, F\]; write it as a slice"),
    "frames to pieces": (lambda m, y: y.chunk(3, 1)[0], {}, r"aten\.chunk\.default .* only features can be split, frames run one by one"),
    "frame by frame": (lambda m, y: torch.stack([m.fc(one) for one in y.unbind(1)], 1), {"fc": nn.Linear(6, 2)}, r"aten\.unbind\.int .* takes dimension 1 of \[B, T, F\] to pieces"),
    "frames chosen": (lambda m, y: y[:, [0, 2]], {}, r"aten\.index\.Tensor .* chooses of the dimensions \[1\] of \[B, T, F\]; only features can be, by one constant list"),
    "frames rolled": (lambda m, y: y.roll(1, 1), {}, r"aten\.roll\.default .* rolls a dimension of \[B, T, F\] that is not one of features"),
    "the batch squeezed": (lambda m, y: y[:1].squeeze(0), {}, r"aten\.slice\.Tensor .* all rows must be kept"),
    "padding by reflection": (lambda m, y: F.pad(turned(y), (1, 1), mode="reflect"), {}, r"aten\.pad\.default .* pads by 'reflect'; only padding with zeros"),
    "padding with ones": (lambda m, y: F.pad(y, (1, 1), value=1.0), {}, r"aten\.pad\.default .* pads with 1\.0; only padding with zeros"),
    "padding of rows": (lambda m, y: F.pad(y, (0, 0, 0, 0, 1, 0)), {}, r"aten\.pad\.default .* pads dimension 0 of \[B, T, F\], the rows"),
    "padded features without a convolution": (lambda m, y: F.pad(y, (1, 1)).relu(), {}, r"aten\.relu\.default .* reads features padded with zeros; only a convolution takes up such padding"),
    "channels first as the output": (lambda m, y: turned(y), {}, r"the output is laid out \[B, F, T\], but the input \[B, T, F\]; transpose it in forward"),
    # layers
    "a Linear over time": (lambda m, y: m.fc(turned(y)), {"fc": nn.Linear(9, 2)}, r"aten\.linear\.default in the module 'fc' runs over the last dimension of \[B, F, T\], which is not one of features"),
    "a convolution with the time for channels": (lambda m, y: m.conv(y), {"conv": nn.Conv1d(9, 4, 3)}, r"aten\.conv1d\.default in the module 'conv' takes rows from dimension 0 and channels from dimension 1, but gets \[B, T, F\]; transpose it before"),
    "a convolution padded too far": (lambda m, y: m.conv(y[:, None]).flatten(1, 2), {"conv": nn.Conv2d(1, 2, 1, padding=(0, 2))}, r"aten\.conv2d\.default in the module 'conv' pads 6 features by 2 and 2, beyond the reach of its kernel"),
    "a transposed convolution": (lambda m, y: m.conv(turned(y)), {"conv": nn.ConvTranspose1d(6, 4, 3)}, r"aten\.conv_transpose1d\.default in the module 'conv' is not supported; a Linear or"),
    "batch norm of the batch": (lambda m, y: turned(m.norm(turned(y))), {"norm": nn.BatchNorm1d(6, track_running_stats=False)}, r"aten\.batch_norm\.default in the module 'norm' uses the statistics of its batch; call model\.eval\(\), and keep track_running_stats on"),
    "batch norm with the time for channels": (lambda m, y: m.norm(y), {"norm": nn.BatchNorm1d(9)}, r"aten\.batch_norm\.default in the module 'norm' takes channels from dimension 1, but gets \[B, T, F\]"),
    "group norm": (lambda m, y: turned(m.norm(turned(y))), {"norm": nn.GroupNorm(2, 6)}, r"aten\.group_norm\.default in the module 'norm' is not supported: its statistics"),
    "weights of the input": (lambda m, y: y @ y.transpose(1, 2), {}, r"aten\.matmul\.default .* multiplies two values; a matrix must be constant, or one of the values weights over time"),
    "padded max-pooling": (lambda m, y: F.max_pool1d(turned(y), 3, padding=1), {}, r"aten\.max_pool1d\.default .* only padding=0 and ceil_mode=False"),
    "average-pooling of what is there": (lambda m, y: F.avg_pool1d(turned(y), 3, padding=1, count_include_pad=False), {}, r"aten\.avg_pool1d\.default .* divides by other numbers at the ends"),
    "pooling to three frames": (lambda m, y: turned(F.adaptive_avg_pool1d(turned(y), 3)), {}, r"aten\.adaptive_avg_pool1d\.default .* makes \[3\] of \[9\]; only 1, or None"),
    "the maximum of a hundred features": (lambda m, y: m.fc(y).amax(-1), {"fc": nn.Linear(6, 100)}, r"aten\.amax\.default .* is the maximum of 100 features; at most 64 are supported: pool in two steps"),
    # arithmetic
    "a vector added to all frames": (lambda m, y: y + y.mean(1, keepdim=True), {}, r"aten\.add\.Tensor .* joins values laid out \[B, T, F\] and \[B, F, F\]; a vector over all frames"),
    "a constant over time": (lambda m, y: y + m.position, {"position": nn.Parameter(torch.ones(9, 6))}, r"aten\.add\.Tensor .* takes a constant of the sizes \[9, 6\] with \[B, T, F\]; it may differ from feature to feature alone"),
    "division by a value": (lambda m, y: y / (y.abs() + 1), {}, r"aten\.div\.Tensor .* divides by a value; only constants"),
    "one by a value": (lambda m, y: 1 / y, {}, r"aten\.(reciprocal\.default|div\.\w+) .*(is not supported|divides by a value)"),
    "a cube": (lambda m, y: y**3, {}, r"aten\.pow\.Tensor_Scalar .* is to the power of 3; only squares"),
    "bounds that are tensors": (lambda m, y: y.clamp(m.low), {"low": nn.Parameter(torch.zeros(6))}, r"aten\.clamp\.Tensor .* is not supported"),
    "an ELU": (lambda m, y: F.elu(y), {}, r"aten\.elu\.default .* is not supported"),
    "a GLU over time": (lambda m, y: F.glu(y[:, 1:], 1), {}, r"aten\.glu\.default .* halves dimension 1 of \[B, T, F\]"),
    "frames of two lengths": (lambda m, y: torch.cat([turned(m.conv(turned(y)))[:, :4], y[:, ::2][:, :-1]], -1), conv(2, stride=2), r"(aten\.slice\.Tensor .* frames|joins sequences whose frames are not the same)"),
    "another stride": (lambda m, y: turned(m.conv(turned(y))) + y[:, 1::2, :4], conv(2, stride=2), r"aten\.add\.Tensor .* joins sequences whose frames are not the same: of 9 frames"),
    # over time
    "a sum over time": (lambda m, y: y.sum(1), {}, r"aten\.sum\.dim_IntList .* is over time, where the mean, the maximum and the last frame are supported"),
    "the deviation over time": (lambda m, y: y.std(1), {}, r"aten\.std\.\w+ .* is not supported; over time there are mean"),
    "the mean over rows": (lambda m, y: y.mean(0), {}, r"aten\.mean\.dim .* is over the dimensions \[0\] of \[B, T, F\]; rows stay apart"),
    "where the maximum is": (lambda m, y: m.fc(y.max(1).indices.float()), {"fc": nn.Linear(6, 2)}, r"aten\.to\.dtype .* is not supported: it makes torch\.float32 of torch\.int64"),
    "scores of other frames": (lambda m, y: (turned(m.conv(turned(y)))[..., :1].softmax(1) * y[:, 1::2]).sum(1), conv(2, stride=2), r"aten\.sum\.dim_IntList .* joins sequences whose frames are not the same: of 9 frames"),
    "several scores a frame": (lambda m, y: (y.softmax(1) * y).sum(1), {}, r"aten\.softmax\.int .* is over time with 6 scores a frame; attention has one score a frame"),
    "weights over time as the output": (lambda m, y: y[..., :1].softmax(1), {}, r"aten\.softmax\.int|reads a softmax over time"),
    "weights over time alone": (lambda m, y: m.fc(y[..., :1].softmax(1)), {"fc": nn.Linear(1, 2)}, r"aten\.linear\.default in the module 'fc' reads a softmax over time \('anchor\.l0\.gather'\); it can only weigh a sequence that is then summed over time"),
    "weighted but not summed": (lambda m, y: m.fc(y[..., :1].softmax(1) * y), {"fc": nn.Linear(6, 2)}, r"aten\.linear\.default .* reads a softmax over time"),
    "weighted, then its mean": (lambda m, y: (y[..., :1].softmax(1) * y).mean(1), {}, r"aten\.mean\.dim .* averages what weights over time were multiplied with; sum it"),
    "weighted, summed over features": (lambda m, y: (y[..., :1].softmax(1) * y).sum(-1), {}, r"aten\.sum\.dim_IntList .* sums over features what weights over time were multiplied with"),
    "softmax over rows": (lambda m, y: y.softmax(0), {}, r"aten\.softmax\.int .* is over dimension 0 of \[B, T, F\], which is not one of features"),
    "log-softmax over time": (lambda m, y: y.log_softmax(1), {}, r"aten\.log_softmax\.int .* is over dimension 1 of \[B, T, F\]"),
    "scaled dot products": (lambda m, y: F.scaled_dot_product_attention(y, y, y), {}, r"aten\.scaled_dot_product_attention\.default .* is not supported; attention has one score a frame"),
    # floating point
    "a recurrence after layer norm": (lambda m, y: m.rnn(m.norm(y))[0], {"norm": nn.LayerNorm(6), "rnn": nn.GRU(6, 4, batch_first=True)}, r"aten\.gru\.input in the module 'rnn' reads 'norm', which is in floating point: softmax, LayerNorm and what follows them stand at the output side"),
    "a convolution after a softmax": (lambda m, y: m.conv(turned(y.softmax(-1))), conv(3), r"aten\.conv1d\.default in the module 'conv' reads 'forward\.softmax', which is in floating point"),
    "the mean of a softmax": (lambda m, y: y.softmax(-1).mean(1), {}, r"aten\.mean\.dim .* is over the frames of 'forward\.softmax', which is in floating point: put the mean before softmax or LayerNorm"),
    "frames of a softmax cut off": (lambda m, y: y.softmax(-1)[:, 1:], {}, r"aten\.slice\.Tensor .* moves the frames of 'forward\.softmax', which is in floating point; do that before"),
    "SiLU of a layer norm": (lambda m, y: F.silu(m.norm(y)), {"norm": nn.LayerNorm(6)}, r"aten\.silu\.default .* reads 'norm', which is in floating point, where there are only relu, sigmoid"),
    "layer norm over time": (lambda m, y: F.layer_norm(y, (9, 6)), {}, r"aten\.layer_norm\.default .* normalizes \[9, 6\] of \[B, T, F\]; only features"),
    "layer norm of a part": (lambda m, y: F.layer_norm(y.view(3, 9, 2, 3), (3,)).flatten(2), {}, r"aten\.layer_norm\.default .* normalizes \[3\] of \[2, 3\] features; all must be normalized together"),
    "a Linear over a part of a softmax": (lambda m, y: m.fc(y.softmax(-1).view(3, 9, 2, 3)).flatten(2), {"fc": nn.Linear(3, 2)}, r"aten\.linear\.default in the module 'fc' runs over 3 of 6 features in floating point; flatten them"),
    "floats of other sizes joined": (lambda m, y: y.softmax(-1) * y[..., :1], {}, r"aten\.mul\.Tensor .* joins \[6\] and \[1\] features in floating point"),
}  # fmt: skip


@pytest.mark.fast(16)
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_operation_and_the_place(name):
    forward, modules, words = REFUSED[name]
    model = Model(
        lambda m, x: forward(m, m.anchor(x)[0]), anchor=nn.GRU(FEATURES, 6, batch_first=True), **modules
    ).eval()
    with pytest.raises(RindleError, match=words):
        capture(model, X)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.first(x) * (x.shape[1] / 9),
        lambda m, x: m.first(x)[:, -1:].expand(-1, x.shape[1], -1),
        lambda m, x: F.pad(m.first(x), (0, 0, 20 - x.shape[1], 0)),
    ],
)
def test_what_depends_on_the_length_is_found_by_running_it(forward):
    model = Model(forward, first=first()).eval()
    with pytest.raises(RindleError, match=r"(differs from Model|gives .*, Model) .*depends on the sequence length"):
        rindle.quantize(model, "int8", X)


def test_active_dropout_is_refused():
    model = Model(lambda m, x: F.dropout(m.first(x), 0.5), first=first()).eval()
    with pytest.raises(RindleError, match=r"aten\.dropout\.default .* is active; call model\.eval\(\)"):
        capture(model, X)


def test_an_input_of_other_rank_is_refused():
    with pytest.raises(RindleError, match=r"has 2 dimensions \(3, 5\); it must have 3"):
        capture(Model(lambda m, x: m.first(x), first=nn.Linear(FEATURES, 2)).eval(), X[:, 0])
