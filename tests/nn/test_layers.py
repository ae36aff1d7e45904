"""Layers beyond their values (which tests/torch_agreement compares): sizes from the first input,
dtypes, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn


def test_a_layer_takes_its_input_size_from_its_first_input() -> None:
    treadle.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(None, 4, 3), nn.BatchNorm2d(None), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)
    )
    with pytest.raises(treadle.TreadleError, match=r"Conv2d at '0' has no parameters before its"):
        list(model.parameters())
    with pytest.raises(treadle.TreadleError, match="has no input size yet"):
        treadle.jit(lambda x: model(x))(treadle.zeros((2, 3, 8, 8)))
    assert model(treadle.zeros((2, 3, 8, 8))).shape == (2, 5)
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    assert shapes["0.weight"] == (4, 3, 3, 3) and shapes["4.weight"] == (5, 144)
    assert shapes["1.running_mean"] == (4,)
    with pytest.raises(treadle.ShapeError, match=r"Conv2d takes \[N, 3, H, W\]"):
        model(treadle.zeros((2, 4, 8, 8)))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Linear(None, 4), (2, 3)),
        (lambda: nn.Conv1d(None, 4, 3), (2, 3, 8)),
        (lambda: nn.ConvTranspose2d(None, 4, 3), (2, 3, 5, 5)),
        (lambda: nn.LazyConvTranspose1d(4, 3), (2, 3, 8)),
        (lambda: nn.LazyConvTranspose2d(4, 3), (2, 3, 5, 5)),
        (lambda: nn.BatchNorm1d(None), (2, 3)),
        (lambda: nn.LazyBatchNorm1d(), (2, 3, 4)),
        (lambda: nn.LazyBatchNorm2d(momentum=0.2), (2, 3, 4, 4)),
        (lambda: nn.LayerNorm(None), (2, 5, 3)),
        (lambda: nn.RMSNorm(None), (2, 5, 3)),
        (lambda: nn.GroupNorm(3, None), (2, 3, 4, 4)),
        (lambda: nn.RNN(None, 4), (5, 2, 3)),
        (lambda: nn.LSTM(None, 4, bidirectional=True), (5, 2, 3)),
        (lambda: nn.GRU(None, 4, 2), (5, 2, 3)),
    ],
)
def test_every_layer_with_an_input_size_can_take_it_from_summary_or_input(
    layer: Any, shape: tuple[int, ...]
) -> None:
    by_input, by_summary = nn.Sequential(layer()), nn.Sequential(layer())
    with pytest.raises(treadle.TreadleError, match="before its first input"):
        by_input.state_dict()
    by_input(treadle.zeros(shape))
    nn.summary(by_summary, shape)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (by_input, by_summary)]
    assert shapes[0] == shapes[1] and any(3 in s or 6 in s for s in shapes[0].values())


def test_upsample_is_interpolate_and_a_pool_is_its_function() -> None:
    x = treadle.tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 5)))
    functional = nn.functional
    pairs = [
        (nn.Upsample(scale_factor=2)(x), functional.interpolate(x, scale_factor=2)),
        (
            nn.Upsample((7, 3), mode="bilinear", align_corners=True)(x),
            functional.interpolate(x, (7, 3), mode="bilinear", align_corners=True),
        ),
        (nn.AdaptiveMaxPool1d(2)(x[0]), functional.adaptive_max_pool1d(x[0], 2)),
        (nn.AdaptiveMaxPool2d((2, None))(x), functional.adaptive_max_pool2d(x, (2, None))),
    ]
    for found, wanted in pairs:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    assert repr(nn.Upsample(scale_factor=2)) == "Upsample(scale_factor=2, mode='nearest')"
    with pytest.raises(treadle.ArgumentError, match="size"):
        nn.Upsample()(x)


def test_modules_by_name_are_kept_saved_and_trained() -> None:
    heads = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 1)})
    heads["c"] = nn.ReLU()
    assert list(heads) == ["a", "b", "c"] and "b" in heads and len(heads) == 3
    assert heads["b"](treadle.zeros((4, 2))).shape == (4, 1)
    assert list(heads.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    del heads["a"]
    assert [n for n, _ in heads.named_parameters()] == ["b.weight", "b.bias"]
    for name in ("forward", "x.y", ""):
        with pytest.raises(treadle.ArgumentError, match="cannot be the name of a module"):
            heads[name] = nn.ReLU()
    with pytest.raises(treadle.DTypeError, match="holds modules, found int"):
        heads["d"] = 3  # type: ignore[assignment]
    with pytest.raises(KeyError):
        heads["a"]


def test_gradients_at_the_kinks_of_activations_are_pytorchs() -> None:
    """Recorded of PyTorch: a dead input of 0 must not be trained by one and not by the other."""
    functional = nn.functional
    wanted = {
        "relu": ([0.0], [0.0]),
        "relu6": ([0.0, 6.0], [0.0, 0.0]),
        "leaky_relu": ([0.0], [0.01]),
        "elu": ([0.0, -0.0], [1.0, 1.0]),
        "celu": ([0.0, -0.0], [1.0, 1.0]),
        "selu": ([0.0], [1.7580993408473766]),
        "hardtanh": ([-1.0, 1.0], [0.0, 0.0]),
        "hardsigmoid": ([-3.0, 3.0], [0.0, 0.0]),
        "hardswish": ([-3.0, 3.0], [0.0, 1.0]),
    }
    for name, (places, slopes) in wanted.items():
        function = getattr(functional, name)
        slope = treadle.grad(lambda x, function=function: treadle.sum(function(x)))
        for run in (slope, treadle.jit(slope)):
            found = run(treadle.tensor(places, dtype=treadle.float64))
            np.testing.assert_allclose(np.asarray(found), slopes, rtol=1e-12, err_msg=name)


def test_activations_of_infinities_are_their_limits() -> None:
    functional = nn.functional
    ends = treadle.tensor([-np.inf, np.inf])
    limits = {
        "gelu": (0, np.inf), "silu": (0, np.inf), "hardswish": (0, np.inf),
        "elu": (-1, np.inf), "softplus": (0, np.inf), "relu6": (0, 6), "hardtanh": (-1, 1),
        "hardsigmoid": (0, 1), "sigmoid": (0, 1), "tanh": (-1, 1), "logsigmoid": (-np.inf, 0),
    }  # fmt: skip
    for name, wanted in limits.items():
        function = getattr(functional, name)
        for run in (function, treadle.jit(lambda x, function=function: function(x))):
            np.testing.assert_array_equal(np.asarray(run(ends)), wanted, err_msg=name)
            assert np.isnan(np.asarray(run(treadle.tensor([np.nan]))))[0], name


def test_one_slope_of_prelu_may_have_no_axis_and_so_may_its_input() -> None:
    prelu = nn.functional.prelu
    for weight in (0.25, [0.25]):
        assert prelu(treadle.tensor(-2.0), treadle.tensor(weight)).shape == ()
        found = prelu(treadle.tensor([-2.0, 3.0]), treadle.tensor(weight))
        np.testing.assert_array_equal(np.asarray(found), [-0.5, 3.0])


def test_a_module_changes_its_dtype_and_keeps_what_is_shared() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    model.double()
    assert model[2].weight is model[0].weight
    kinds = {k: v.dtype for k, v in model.state_dict().items()}
    assert kinds.pop("1.num_batches_tracked") == treadle.int64
    assert set(kinds.values()) == {treadle.float64}
    assert model(treadle.zeros((2, 3), dtype=treadle.float64)).dtype == treadle.float64
    assert model.float()[0].weight.dtype == treadle.float32
    with pytest.raises(treadle.DTypeError, match="dtype is a float, found int32"):
        model.to(treadle.int32)


def test_running_statistics_follow_inside_a_jitted_step_and_rest_in_evaluation() -> None:
    eager, jitted = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    step = treadle.jit(lambda x: jitted(x))
    rng = np.random.default_rng(0)
    for training in (True, True, False):
        x = treadle.tensor(rng.normal(size=(8, 3)).astype(np.float32))
        wanted, found = eager.train(training)(x), None
        jitted.train(training)
        found = step(x)
        np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-5, atol=1e-6)
    for name, buffer in eager.named_buffers():
        np.testing.assert_allclose(
            np.asarray(dict(jitted.named_buffers())[name]), np.asarray(buffer), rtol=1e-6
        )
    assert int(eager.num_batches_tracked.item()) == 2  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_that_cannot_be_normalised_leaves_the_statistics(
    momentum: float | None, jitted: bool
) -> None:
    norm = nn.BatchNorm2d(3, momentum=momentum)
    run = treadle.jit(lambda x: norm(x)) if jitted else norm
    run(treadle.randn(4, 3, 2, 2))
    before = {k: v.numpy().copy() for k, v in norm.state_dict().items()}
    assert before["num_batches_tracked"] == 1
    for shape in ((0, 3, 2, 2), (1, 3, 1, 1), (2, 3, 0, 2), (2, 4, 2, 2)):
        with pytest.raises(treadle.ShapeError, match=r"more than one value|takes \[N, 3"):
            run(treadle.zeros(shape))
    norm.eps = -1.0
    with pytest.raises(treadle.ArgumentError, match="eps must be at least 0"):
        run(treadle.zeros((4, 3, 2, 2)))
    for key, value in norm.state_dict().items():
        np.testing.assert_array_equal(before[key], value.numpy(), err_msg=key)
    norm.eps = 1e-5
    assert norm.eval()(treadle.zeros((0, 3, 2, 2))).shape == (0, 3, 2, 2)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])
def test_dropout_stands_between_recurrent_layers_in_training_only(make: Any, jitted: bool) -> None:
    """With a probability of 1 the layers above see nothing but zeros."""
    treadle.manual_seed(0)
    both, x = make(3, 4, 2, dropout=1.0), treadle.randn(5, 2, 3)
    upper = make(4, 4)
    upper.load_state_dict({k: getattr(both, k.replace("_l0", "_l1")) for k in upper.state_dict()})
    run = treadle.jit(lambda x: both(x)[0]) if jitted else lambda x: both(x)[0]
    wanted = upper(treadle.zeros((5, 2, 4)))[0].detach()
    np.testing.assert_allclose(run(x).detach().numpy(), wanted.numpy(), atol=1e-6)
    both.eval()
    plain = make(3, 4, 2)
    plain.load_state_dict(both.state_dict())
    np.testing.assert_allclose(
        run(x).detach().numpy(), plain(x)[0].detach().numpy(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_of_attention_acts_on_weights_in_training_only(
    need_weights: bool, jitted: bool
) -> None:
    treadle.manual_seed(0)
    layer, x = nn.MultiheadAttention(6, 2, dropout=1.0), treadle.randn(5, 2, 6)
    with treadle.no_grad():
        layer.out_proj.bias.add_(1.0)  # type: ignore[union-attr]  # it has one

    def attend(x: Any) -> Any:
        return layer(x, x, x, need_weights=need_weights)[0]

    run = treadle.jit(attend) if jitted else attend
    np.testing.assert_array_equal(run(x).detach().numpy(), np.ones((5, 2, 6), np.float32))
    layer.eval()
    plain = nn.MultiheadAttention(6, 2)
    plain.load_state_dict(layer.state_dict())
    wanted = plain(x, x, x)[0].detach().numpy()
    np.testing.assert_allclose(run(x).detach().numpy(), wanted, rtol=1e-4, atol=1e-6)


def test_softmax_of_many_axes_is_told_which() -> None:
    """PyTorch takes the first of three, the second of four, with a warning."""
    x = treadle.randn(2, 3, 4)
    for make in (nn.Softmax, nn.Softmin, nn.LogSoftmax):
        np.testing.assert_array_equal(np.asarray(make()(x[0])), np.asarray(make(1)(x[0])))
        with pytest.raises(treadle.ArgumentError, match="of 3 axes needs dim"):
            make()(x)


class _Packed:
    """What PyTorch's packed sequences are known by."""

    batch_sizes = (2, 1)


MISTAKES: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.Conv2d(3, 4, 3, groups=2), treadle.ArgumentError, "in_channels must be a multiple"),
    (lambda: nn.Conv2d(4, 3, 3, groups=2), treadle.ArgumentError, "out_channels must be a multi"),
    (lambda: nn.Conv2d(3, 4, 0), treadle.ArgumentError, "kernel_size must be at least 1, found 0"),
    (lambda: nn.Conv1d(3, 4, 3)(treadle.zeros((2, 5))), treadle.ShapeError, r"\[N, 3, W\]"),
    (lambda: nn.Conv2d(3, 4, 3)(treadle.zeros((1, 3, 2, 2))), treadle.ShapeError, "conv2d"),
    (lambda: nn.BatchNorm2d(3)(treadle.zeros((2, 4, 1, 1))), treadle.ShapeError, r"\[N, 3, \.\.\]"),
    (lambda: nn.GroupNorm(2, 3), treadle.ArgumentError, "multiple of num_groups"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), treadle.ArgumentError, "is no row of 3"),
    (lambda: nn.Embedding(3, 2)(treadle.tensor([3])), treadle.IndexFault, "3"),
    (lambda: nn.LayerNorm(3, eps=-1.0)(treadle.ones((2, 3))), treadle.ArgumentError, "eps must be"),
    (lambda: nn.RMSNorm(3, eps=-1.0)(treadle.ones((2, 3))), treadle.ArgumentError, "found -1.0"),
    (lambda: nn.GroupNorm(1, 3, eps=-1.0)(treadle.ones((2, 3))), treadle.ArgumentError, "eps must"),
    (lambda: nn.BatchNorm1d(3, eps=-1.0)(treadle.ones((2, 3))), treadle.ArgumentError, "eps must"),
    (
        lambda: nn.BatchNorm1d(3, eps=-1.0).eval()(treadle.ones((2, 3))),
        treadle.ArgumentError,
        "eps must be at least 0, found -1.0",
    ),
    (lambda: nn.Hardtanh(2.0, 1.0)(treadle.ones(3)), treadle.ArgumentError, "min_val must be at m"),
    (lambda: nn.MultiheadAttention(4, 2, dropout=1.5), treadle.ArgumentError, "found 1.5"),
    (lambda: nn.MultiheadAttention(4, 2, dropout="a"), treadle.DTypeError, "a Python number"),
    (lambda: nn.LayerNorm(None)(treadle.tensor(1.0)), treadle.ShapeError, "layer_norm"),
    (lambda: nn.RMSNorm(None)(treadle.tensor(1.0)), treadle.ShapeError, "rms_norm"),
    (lambda: nn.GroupNorm(2, None)(treadle.ones(3)), treadle.ShapeError, "group_norm"),
    (lambda: nn.LSTM(3, 4, proj_size=2), treadle.ArgumentError, "proj_size is not supported"),
    (lambda: nn.GRU(3, 4)([treadle.zeros((2, 3))]), treadle.DTypeError, "padded to one length"),
    (lambda: nn.LSTM(3, 4)(_Packed()), treadle.DTypeError, "no packed ones: found _Packed"),
    (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), treadle.ArgumentError, "zeros"),
    (lambda: nn.functional.instance_norm(treadle.ones((2, 3, 1))), treadle.ShapeError, "one value"),
    (
        lambda: nn.functional.instance_norm(treadle.ones((2, 3, 2)), treadle.ones(3)),
        treadle.ArgumentError,
        "running_mean and running_var, or neither",
    ),
    (
        lambda: nn.functional.instance_norm(treadle.ones((2, 3, 2)), use_input_stats=False),
        treadle.ArgumentError,
        "needs running statistics",
    ),
    (lambda: nn.Linear(3, -1), treadle.ShapeError, "out_features must be a size"),
    (lambda: nn.GLU()(treadle.zeros((2, 3))), treadle.ShapeError, "whose size is 3"),
    (lambda: nn.Flatten(2, 1)(treadle.zeros((2, 3, 4))), treadle.ShapeError, "does not fit"),
    (lambda: nn.Sigmoid(anything=1), TypeError, r"Sigmoid\(\) takes no options, found anything=1$"),
    (lambda: nn.Tanh(1), TypeError, r"Tanh\(\) takes no options, found 1$"),
    (lambda: nn.ReLU(inplace=True), TypeError, "found inplace=True; no layer works in place"),
]


@pytest.mark.parametrize(("make", "kind", "message"), MISTAKES)
def test_a_layer_names_what_does_not_fit(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_layers_show_their_options() -> None:
    assert repr(nn.Conv2d(3, 4, 3, padding=1)) == (
        "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=1)"
    )
    assert repr(nn.LeakyReLU(0.2)) == "LeakyReLU(negative_slope=0.2)"
    assert repr(nn.MaxPool2d(2)).startswith("MaxPool2d(kernel_size=2, padding=0")
