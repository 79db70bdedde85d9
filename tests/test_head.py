"""head_table and replace_final_linear: optimizers, wrappers, shared weights, other models."""

import gc
import random
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    LabelSmoothingCrossEntropyFlat,
    MSELossFlat,
)
from fastai.optimizer import SGD, Adam, OptimWrapper
from fastai.tabular.all import (
    Categorify,
    CategoryBlock,
    Normalize,
    TabularDataLoaders,
    tabular_learner,
)
from fastai.text.all import AWD_LSTM, TextDataLoaders, awd_lstm_clas_config, text_classifier_learner
from fastai.torch_core import params, set_seed
from fastai.vision.all import DataLoader, DataLoaders, Learner, unet_learner, vision_learner
from torch import nn
from torchvision import models as tv

from multilabel_mnist.head import final_linear, head_table, replace_final_linear


def loaders(shape=(6,), c=5, n=32):
    set_seed(42)
    x = torch.randn(n, *shape)
    y = torch.eye(c)[torch.arange(n) % c]
    data = torch.utils.data.TensorDataset(x, y)
    dls = DataLoaders(*[torch.utils.data.DataLoader(data, batch_size=8) for _ in range(2)])
    dls.c = c
    return dls


def mlp(n_out=5):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, n_out))


def halves(model):
    return [params(model[0]), params(model[2])]


def learner(model=None, **kwargs):
    if model is None:
        model = mlp()
    return Learner(loaders(), model, loss_func=BCEWithLogitsLossFlat(), lr=1e-2, **kwargs)


def how_far(learn):
    """Return how far one epoch moves each parameter."""
    before = {n: p.detach().clone() for n, p in learn.model.named_parameters()}
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    return {n: (p - before[n]).abs().max().item() for n, p in learn.model.named_parameters()}


OPTIMIZERS = {
    "Adam": Adam,
    "SGD": partial(SGD, mom=0.9),
    "torch's AdamW": partial(OptimWrapper, opt=torch.optim.AdamW),
    "torch's SGD": partial(OptimWrapper, opt=torch.optim.SGD, momentum=0.8),
    "torch's Adagrad": partial(OptimWrapper, opt=torch.optim.Adagrad),
}


@pytest.mark.parametrize("opt_func", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "bias added"])
def test_settings_of_groups_and_momenta_are_kept_and_the_new_layer_trains(opt_func, bias):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5, bias=bias))
    learn = learner(model, opt_func=opt_func, splitter=halves)
    learn.create_opt()
    how_far(learn)
    learn.opt.set_hyper("wd", [0.01, 0.2])
    learn.opt.set_hyper("lr", [0.001, 0.02])
    opt = learn.opt
    settings = [dict(h) for h in opt.hypers]
    state = getattr(opt, "opt", opt).state
    weight = learn.model[0].weight
    momenta = dict(state[weight])
    replace_final_linear(learn, 5, prior=0.2)
    assert learn.opt is opt
    assert [dict(h) for h in opt.hypers] == settings
    assert dict(state[weight]).keys() == momenta.keys()
    assert all(state[weight][name] is value for name, value in momenta.items())
    held = [[id(p) for p in group] for group in opt.param_lists]
    assert held == [[id(p) for p in learn.model[i].parameters()] for i in (0, 2)]
    assert min(how_far(learn).values()) > 1e-4


def test_by_hand_it_would_not_train():
    learn = learner()
    learn.create_opt()
    learn.model[2] = nn.Linear(8, 5)
    moved = how_far(learn)
    assert moved["2.weight"] == moved["2.bias"] == 0
    assert moved["0.weight"] > 0
    # The optimizer does not hold the layer that was swapped in by hand.
    replace_final_linear(learn, 5)
    assert how_far(learn)["2.weight"] > 1e-4


@pytest.mark.parametrize("started", [False, True])
def test_an_optimizer_that_was_built_by_hand_takes_the_new_layer(started):
    model = mlp(3)
    learn = learner(model)
    learn.opt_func = OptimWrapper(opt=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.7))
    if started:
        learn.create_opt()
    replace_final_linear(learn, 5)
    assert min(how_far(learn).values()) > 1e-4
    assert learn.opt is learn.opt_func
    assert learn.opt.hypers[0]["mom"] == 0.7


@pytest.mark.parametrize("wd_bn_bias", [True, False])
def test_biases_are_decayed_only_where_they_were(wd_bn_bias):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5, bias=False))
    learn = learner(model, wd_bn_bias=wd_bn_bias)
    learn.create_opt()
    replace_final_linear(learn, 5, prior=0.2)
    assert learn.opt.state[learn.model[2].bias].get("do_wd", True) is wd_bn_bias
    assert learn.opt.state[learn.model[2].weight].get("do_wd", True)


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated")  # fastai's
def test_an_optimizers_saved_state_still_fits(tmp_path):
    learn = learner(splitter=halves, path=tmp_path)
    how_far(learn)
    learn.save("before")
    learn.load("before")  # makes the optimizer's state a plain dict
    replace_final_linear(learn, 5, prior=0.2)
    how_far(learn)
    learn.save("after")
    fresh = learner(splitter=halves, path=tmp_path).load("after")
    assert torch.equal(fresh.model[2].weight, learn.model[2].weight)
    assert torch.equal(
        fresh.opt.state[fresh.model[2].bias]["grad_avg"],
        learn.opt.state[learn.model[2].bias]["grad_avg"],
    )


def test_what_is_frozen_stays_frozen():
    learn = vision_learner(
        loaders((3, 32, 32)), tv.resnet18, pretrained=False, loss_func=BCEWithLogitsLossFlat()
    )
    learn.freeze()
    # Batch norms train, the rest of the body does not.
    trainable = {n: p.requires_grad for n, p in learn.model.named_parameters()}
    frozen = learn.opt.frozen_idx
    weight = learn.model[0][0].weight.detach().clone()
    replace_final_linear(learn, 5, prior=0.2)
    assert learn.opt.frozen_idx == frozen > 0
    after = {n: p.requires_grad for n, p in learn.model.named_parameters()}
    assert after == trainable | {"1.8.bias": True}
    moved = how_far(learn)
    assert moved["0.0.weight"] == 0
    assert moved["1.8.weight"] > 0
    assert moved["1.8.bias"] > 0
    assert torch.equal(learn.model[0][0].weight, weight)
    learn.unfreeze()
    assert how_far(learn)["0.0.weight"] > 0


def test_frozen_by_hand_and_frozen_altogether():
    learn = learner(splitter=halves)
    learn.create_opt()
    learn.model[0].weight.requires_grad_(False)
    replace_final_linear(learn, 5)
    assert not learn.model[0].weight.requires_grad
    assert learn.model[0].bias.requires_grad
    assert learn.model[2].weight.requires_grad
    with pytest.warns(UserWarning, match="whole model is frozen"):
        learn.freeze_to(2)
    replace_final_linear(learn, 5)
    assert not any(p.requires_grad for p in learn.model[2].parameters())
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())


class TwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.fc = nn.Linear(8, 3)
        self.head = nn.Sequential(nn.ReLU(), self.fc)

    def forward(self, x):
        return self.head(self.body(x))


def test_a_layer_under_two_names_is_replaced_under_both():
    model = replace_final_linear(TwoNames(), 4)
    assert model.fc is model.head[1]
    assert model.fc.out_features == 4
    assert model(torch.zeros(2, 6)).shape == (2, 4)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 10)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.embed(x).mean(1))


def test_tied_weights_are_untied_and_both_go_on_training():
    x = torch.arange(32).reshape(16, 2) % 10
    y = torch.eye(7)[torch.arange(16) % 7]
    data = torch.utils.data.TensorDataset(x, y)
    dls = DataLoaders(*[torch.utils.data.DataLoader(data, batch_size=8)] * 2)
    learn = Learner(dls, Tied(), loss_func=BCEWithLogitsLossFlat())
    learn.create_opt()
    before = learn.model.embed.weight
    message = "shared its weights with embed.weight: the new one has its own"
    with pytest.warns(UserWarning, match=message) as caught:
        replace_final_linear(learn, 7)
    assert caught[0].filename == __file__  # the warning points at the caller
    assert learn.model.embed.weight is before
    assert learn.model.out.weight.shape == (7, 4)
    shapes = [p.shape for group in learn.opt.param_lists for p in group]
    assert shapes.count((7, 4)) == 1
    moved = how_far(learn)
    assert moved["embed.weight"] > 0
    assert moved["out.weight"] > 0


@pytest.mark.parametrize("n", [4, np.int64(4), np.uint8(4)], ids=repr)
def test_kinds_of_whole_numbers(n):
    assert replace_final_linear(mlp(), n)[2].out_features == 4


@pytest.mark.parametrize(
    "n",
    [0, -1, np.int64(0), 4.0, np.float64(4), "4", None, True, np.True_, torch.tensor(4)],
    ids=repr,
)
def test_what_is_not_a_number_of_outputs(n):
    model = mlp()
    with pytest.raises(ValueError, match="expected n_out to be a whole number of at least 1"):
        replace_final_linear(model, n)
    assert model[2].out_features == 5


@pytest.mark.parametrize("prior", [0, 1, -0.1, float("nan"), "rare", [0.1, 0.2], [[0.1] * 3], 1j])
def test_what_is_not_a_prior(prior):
    with pytest.raises(ValueError, match="expected prior to be a probability between 0 and 1"):
        replace_final_linear(mlp(), 3, prior=prior)


def test_a_prior_of_the_wrong_shape_is_described_not_printed():
    with pytest.raises(ValueError, match=r"got a float32 tensor of shape \(50, 50\); pass"):
        replace_final_linear(mlp(), 3, prior=torch.full((50, 50), 0.5))


def test_a_prior_may_be_smaller_than_float32_allows():
    bias = replace_final_linear(mlp(), 3, prior=1e-300)[2].bias
    torch.testing.assert_close(bias, torch.full((3,), np.log(1e-300)), check_dtype=False)


@pytest.mark.parametrize(
    "prior",
    [
        0.2,
        [0.1, 0.2, 0.3],
        np.array([0.1, 0.2, 0.3]),
        pd.Series([0.1, 0.2, 0.3]),
        torch.tensor([0.1, 0.2, 0.3], dtype=torch.double),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_priors_of_many_kinds(prior):
    bias = replace_final_linear(mlp(), 3, prior=prior)[2].bias
    expected = torch.as_tensor(np.broadcast_to(prior, 3).copy(), dtype=torch.float32)
    torch.testing.assert_close(bias.sigmoid().detach(), expected)


def test_a_lazy_layer_must_have_seen_a_batch():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match="got a lazy one; send one batch through the model first"):
        replace_final_linear(model, 4)
    with pytest.raises(ValueError, match="lazy layers; send one batch through the model first"):
        head_table(model, torch.zeros(2, 6))
    model(torch.zeros(2, 6))
    assert replace_final_linear(model, 4)(torch.zeros(2, 6)).shape == (2, 4)


def wrapped(kind, model):
    """Return a wrapper without the process group that its own __init__ needs."""
    wrapper = kind.__new__(kind)
    nn.Module.__init__(wrapper)
    wrapper.module = model
    return wrapper


def test_a_distributed_model_is_an_error_before_anything_changes():
    model = wrapped(nn.parallel.DistributedDataParallel, mlp(3))
    assert final_linear(model)[0] == "module.2"
    message = "wrapped in DistributedDataParallel.* replace the layer first and wrap the model"
    with pytest.raises(ValueError, match=message):
        replace_final_linear(model, 4)
    assert model.module[2].out_features == 3


def test_wrappers_that_read_the_model_anew_go_on_working():
    parallel = nn.DataParallel(mlp())
    assert replace_final_linear(parallel, 4) is parallel
    assert parallel.module[2].out_features == 4
    compiled = torch.compile(mlp(), backend="eager")
    assert compiled(torch.zeros(2, 6)).shape == (2, 5)
    assert replace_final_linear(compiled, 4)(torch.zeros(2, 6)).shape == (2, 4)


def test_device_dtype_and_mode_are_the_old_layers():
    model = replace_final_linear(mlp().double().eval(), 4)
    assert model[2].weight.dtype == torch.double
    assert not model[2].training
    assert model(torch.zeros(2, 6, dtype=torch.double)).shape == (2, 4)


def test_a_model_that_is_one_layer():
    assert replace_final_linear(nn.Linear(6, 3), 4).out_features == 4
    learn = learner(nn.Linear(6, 3))
    learn.create_opt()
    assert replace_final_linear(learn, 5).model.out_features == 5
    assert how_far(learn)["weight"] > 0


def test_a_model_without_a_last_linear_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(1, 1, 1))
    with pytest.raises(ValueError, match="expected Sequential to end in an nn.Linear"):
        replace_final_linear(model, 3)


def test_tabular_learner_keeps_its_embeddings():
    df = pd.DataFrame(
        {"size": np.arange(64.0), "colour": list("rgby") * 16, "kind": list("ab") * 32}
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array")
        dls = TabularDataLoaders.from_df(
            df,
            procs=[Categorify, Normalize],
            cat_names=["colour"],
            cont_names=["size"],
            y_names="kind",
            y_block=CategoryBlock(),
            bs=16,
        )
        learn = tabular_learner(dls, layers=[8])
        embeds = learn.model.embeds[0].weight
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)
        replace_final_linear(learn, 2, prior=[0.5, 0.5])
        assert learn.model.embeds[0].weight is embeds
        assert min(how_far(learn).values()) > 0
        assert head_table(learn).out_shape.iloc[-1][-1] == 2


def test_a_look_changes_nothing():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 5))
    learn = learner(model)
    learn.model[2].eval()
    state = {k: v.clone() for k, v in learn.model.state_dict().items()}
    modes = [m.training for m in learn.model.modules()]
    set_seed(7)
    expected = (random.random(), np.random.rand(), torch.rand(1))
    set_seed(7)
    head_table(learn)
    final_linear(learn)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert modes == [m.training for m in learn.model.modules()]
    assert not any(m._forward_hooks for m in learn.model.modules())
    assert all(torch.equal(v, state[k]) for k, v in learn.model.state_dict().items())


@pytest.mark.parametrize("n_valid", [8, 0])
def test_a_look_does_not_change_the_next_epoch(n_valid):
    def order(look):
        set_seed(42)
        items = [(torch.randn(6), i) for i in range(24)]
        train = DataLoader(items, bs=4, shuffle=True, num_workers=0)
        valid = DataLoader(items[:n_valid], bs=4, shuffle=False, num_workers=0)
        learn = Learner(DataLoaders(train, valid), mlp(), loss_func=BCEWithLogitsLossFlat())
        if look:
            assert head_table(learn).in_shape.iloc[-1] == (4, 8)
        return torch.cat([y for _, y in learn.dls.train]).tolist()

    assert order(look=True) == order(look=False) != sorted(order(look=False))


def test_a_text_classifier_gives_states_beside_its_logits():
    df = pd.DataFrame({"text": ["a b c d", "x y z"] * 20, "label": ["p", "q"] * 20})
    dls = TextDataLoaders.from_df(
        df, text_col="text", label_col="label", valid_pct=0.2, seq_len=8, bs=8
    )
    config = {**awd_lstm_clas_config, "n_hid": 12, "emb_sz": 6}
    learn = text_classifier_learner(dls, AWD_LSTM, pretrained=False, config=config)
    learn.freeze_to(-2)
    groups = [len(ps) for ps in learn.opt.param_lists]
    replace_final_linear(learn, 2, prior=0.5)  # adds a bias
    assert [len(ps) for ps in learn.opt.param_lists] == groups[:-1] + [groups[-1] + 1]
    assert final_linear(learn) == ("1.layers.1.2", learn.model[1].layers[1][2])
    assert head_table(learn).out_shape.iloc[-1][-1] == 2
    moved = how_far(learn)
    assert moved["1.layers.1.2.weight"] > 0
    assert moved["0.module.encoder.weight"] == 0


class Measured:
    """A loss that the table does not know; it works on logits and targets of 0s and 1s."""

    def __call__(self, pred, targ):
        return (pred.sigmoid() - targ).square().mean()


LOSSES = {
    "sigmoid (BCEWithLogitsLossFlat)": BCEWithLogitsLossFlat(),
    "softmax (CrossEntropyLossFlat)": CrossEntropyLossFlat(),
    "softmax (LabelSmoothingCrossEntropyFlat)": LabelSmoothingCrossEntropyFlat(),
    "none (MSELossFlat)": MSELossFlat(),
    "none (BCELoss)": nn.BCELoss(),
    "softmax (cross_entropy)": partial(nn.functional.cross_entropy, label_smoothing=0.1),
    "sigmoid (binary_cross_entropy_with_logits)": (nn.functional.binary_cross_entropy_with_logits),
    "sigmoid (Measured)": Measured(),
}


@pytest.mark.parametrize("expected", LOSSES)
def test_what_the_loss_adds(expected):
    learn = learner()
    learn.loss_func = LOSSES[expected]
    assert head_table(learn).loss_adds.tolist() == ["", "", expected]


def test_nested_inputs_of_a_plain_model():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, pair, extra):
            return self.fc(pair["x"] + extra)

    table = head_table(Pair(), ({"x": torch.zeros(2, 6)}, torch.zeros(6)))
    assert table.out_shape.iloc[-1] == (2, 3)


class Config:
    """Like the config of a model of transformers: the number of labels belongs to their names."""

    def __init__(self, n):
        self.hidden_size = 8
        self.id2label = {i: f"LABEL_{i}" for i in range(n)}

    @property
    def num_labels(self):
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, n):
        self.id2label = {i: f"LABEL_{i}" for i in range(n)}


class Keeping(nn.Module):
    """A model that keeps its number of outputs, and uses it."""

    def __init__(self, n=3, config=None):
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(8, n))
        self.num_labels = n
        self.num_classes = n
        self.num_features = 8
        self.config = config

    def forward(self, x):
        return {"logits": self.head(self.body(x)).view(-1, self.num_labels)}


def test_numbers_of_classes_follow():
    config = Config(3)
    model = Keeping(config=config)
    replace_final_linear(model, 5, prior=0.1)
    assert (model.num_labels, model.num_classes, config.num_labels) == (5, 5, 5)
    assert list(config.id2label) == [0, 1, 2, 3, 4]
    assert model.num_features == config.hidden_size == 8
    assert model(torch.zeros(4, 6))["logits"].shape == (4, 5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: nn.Sequential(nn.Flatten(), m),
        nn.DataParallel,
        partial(torch.compile, backend="eager"),
        lambda m: nn.DataParallel(nn.Sequential(m)),
    ],
)
def test_numbers_of_classes_follow_inside_wrappers(wrap):
    model = Keeping(config={"num_labels": 3, "num_classes": 3})
    replace_final_linear(wrap(model), 5)
    assert model.num_labels == model.num_classes == 5
    assert model.config == {"num_labels": 5, "num_classes": 5}


def test_numbers_of_classes_follow_in_a_learner():
    learn = learner(nn.Sequential(Keeping()))
    learn.create_opt()
    assert replace_final_linear(learn, 5).model[0].num_labels == 5


def test_other_numbers_stay():
    """What is not the layer's number of outputs is something else, or not a number."""
    model = Keeping()
    model.num_classes = 1000
    model.config = {"num_labels": "many", "num_classes": None}
    replace_final_linear(model, 5)
    assert (model.num_labels, model.num_classes) == (5, 1000)
    assert model.config == {"num_labels": "many", "num_classes": None}


class OfTheClass(nn.Sequential):
    num_classes = 3


class ReadOnly(nn.Sequential):
    @property
    def num_classes(self):
        return 3


class Computed(nn.Sequential):
    @property
    def num_classes(self):
        return self[-1].out_features


def test_numbers_of_classes_that_belong_to_the_class():
    model = replace_final_linear(OfTheClass(nn.Linear(6, 3)), 5)
    assert (model.num_classes, OfTheClass.num_classes) == (5, 3)
    with warnings.catch_warnings(action="error"):
        assert replace_final_linear(Computed(nn.Linear(6, 3)), 5).num_classes == 5
    with pytest.warns(UserWarning, match="ReadOnly.num_classes stays 3") as caught:
        replace_final_linear(ReadOnly(nn.Linear(6, 3)), 5)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("prior", [None, 0.2])
def test_dtype_device_and_mode_of_the_replaced_layer_are_kept(dtype, train, device, prior):
    model = mlp().to(device, dtype).train(train)
    layer = replace_final_linear(model, 4, prior)[2]
    assert {p.dtype for p in layer.parameters()} == {dtype}
    assert {p.device.type for p in layer.parameters()} == {device}
    assert layer.training is train and layer.weight.requires_grad


def test_a_layer_that_was_frozen_alone_stays_frozen_and_is_warned_of():
    model = mlp()
    model[2].requires_grad_(False)
    with pytest.warns(UserWarning, match="was frozen: call requires_grad_") as caught:
        replace_final_linear(model, 4)
    assert caught[0].filename == __file__
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, False]
    learn = learner()
    learn.create_opt()
    learn.model[2].requires_grad_(False)
    with pytest.warns(UserWarning, match="was frozen"):
        replace_final_linear(learn, 5)
    assert not learn.model[2].weight.requires_grad


@pytest.mark.parametrize("prior", [None, 0.2])
def test_the_new_layer_of_a_model_that_is_frozen_as_a_whole_trains(prior):
    """Fixed features and a new last layer: the first example of every tutorial."""
    model = mlp().requires_grad_(False)
    with warnings.catch_warnings(action="error"):
        replace_final_linear(model, 4, prior)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    model(torch.zeros(2, 6)).sum().backward()


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x / x.norm(), self.weight / self.weight.norm())


def test_what_a_plain_layer_does_not_take_over_is_said():
    hooked = mlp()
    hooked[2].register_forward_hook(lambda *args: None)
    normed = mlp()
    nn.utils.parametrizations.weight_norm(normed[2])
    for model, message in (
        (hooked, "the old layer had hooks: register them again on the new one"),
        (normed, "the old layer was a ParametrizedLinear: the new one is a plain nn.Linear"),
        (nn.Sequential(Cosine(6, 3)), "was a Cosine: the new one is a plain nn.Linear"),
    ):
        with pytest.warns(UserWarning, match=message):
            replace_final_linear(model, 4)
        assert type(model[-1]) is nn.Linear


def test_a_quantized_layer_cannot_be_replaced():
    model = mlp()
    weight = torch.zeros(5, 8, dtype=torch.uint8)
    model[2].weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ValueError, match="float type, got torch.uint8 .*quantize afterwards"):
        replace_final_linear(model, 4)


class Several(nn.Module):
    """A model that takes its inputs by name."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x, mask=None, *, scale=1.0):
        if mask is None:
            raise KeyError("mask")
        return {"logits": self.fc(x * mask * scale), "hidden": x}


def test_head_table_takes_inputs_by_name():
    x = torch.ones(2, 6)
    for inputs in ({"x": x, "mask": x}, (x, x), {"scale": x, "x": x, "mask": x}):
        assert head_table(Several(), inputs).out_shape.iloc[-1] == (2, 3)


@pytest.mark.parametrize("inputs", [torch.ones(2, 6), {"x": torch.ones(2, 6)}], ids=["x", "dict"])
def test_whatever_a_model_raises_is_one_clear_error(inputs):
    with pytest.raises(ValueError, match=r"expected inputs that Several was made for.*\('mask'\)"):
        head_table(Several(), inputs)


def test_a_unet_names_its_last_convolution():
    items = [(torch.randn(3, 32, 32), torch.zeros(32, 32).long())] * 4
    dls = DataLoaders(*[DataLoader(items, bs=2)] * 2)
    learn = unet_learner(
        dls, tv.resnet18, pretrained=False, n_out=5, loss_func=CrossEntropyLossFlat()
    )
    with pytest.raises(ValueError, match=r"\(Conv2d\); replace that layer by hand, as in") as e:
        final_linear(learn)
    gc.collect()  # copies of the model are gone, and must not have taken its hooks with them
    code = str(e.value).split("as in ")[1].split("; ")[0]
    model = learn.model
    exec(code, {"model": model, "nn": nn, "n_out": 7})
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7, 32, 32)


@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "squeezenet1_0", "convnext_tiny"])
def test_vision_learners_of_many_bodies(arch):
    body = getattr(tv, arch)
    if arch == "convnext_tiny":
        body = arch  # timm's
        pytest.importorskip("timm")
    learn = vision_learner(
        loaders((3, 64, 64)), body, pretrained=False, loss_func=BCEWithLogitsLossFlat(), n_out=5
    )
    name, layer = final_linear(learn)
    assert layer is learn.model[1][-1]
    assert name == f"1.{len(learn.model[1]) - 1}"
    assert replace_final_linear(learn, 7).model.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
