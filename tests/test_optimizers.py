"""The optimizers against Keras' own and steps worked out by hand; two replicas against one in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.params import OptimizerParams

PARAMS = {
    "adam": OptimizerParams(name="adam", clip_norm=0.5, ema=0.9),
    "adamw": OptimizerParams(name="adamw", weight_decay=0.1, clip_norm=0.5, ema=0.9),
    "sgd": OptimizerParams(name="sgd", weight_decay=0.1, clip_norm=0.5, ema=0.9),
}
every = pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())


def build(params: OptimizerParams, *args, **kwargs):
    from pipeline.training.optimizers import build_optimizer

    return build_optimizer(params, *args, **kwargs)


def tiny():
    """Return a network of a kernel of ones, a bias, gamma and beta below "backbone/", and a head."""
    import keras

    keras.utils.set_random_seed(5)
    backbone = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones"), keras.layers.BatchNormalization()],
        name="backbone",
    )
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2, name="findings")(backbone(inputs)))


def gradients(seed: int, variables):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=tuple(variable.shape)).astype(np.float32) for variable in variables]


def step(optimizer, variables, seeds):
    """Apply gradients drawn with each seed and return the variables afterwards."""
    for seed in seeds:
        optimizer.apply(gradients(seed, variables), variables)
    return [variable.numpy() for variable in variables]


def assert_same(ours, theirs, rtol=1e-6, atol=1e-7):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def test_scaled_rate():
    from pipeline.training.optimizers import scaled_rate

    assert scaled_rate(OptimizerParams(learning_rate=0.1), 64) == 0.1
    assert scaled_rate(OptimizerParams(learning_rate=0.1, reference_batch=256), 64) == pytest.approx(0.025)


def test_each_is_kerass_own():
    import keras

    own = {
        "adam": keras.optimizers.Adam(0.01, global_clipnorm=0.5),
        "adamw": keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.5),
        "sgd": keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.1, global_clipnorm=0.5),
    }
    for name, theirs in own.items():
        theirs.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        results = [step(one, tiny().trainable_variables, range(4)) for one in (build(PARAMS[name], 0.01), theirs)]
        # Adam's one operation rounds in another order than Keras' dozen: by a ten-thousandth of a step at most.
        assert_same(*results, rtol=0, atol=1e-7 if name == "sgd" else 1e-6)


def test_sgd_takes_nesterovs_step():
    import keras

    # v1 = -0.1 * 2, w1 = 1 + 0.9 v1 - 0.1 * 2 = 0.62; v2 = 0.9 v1 - 0.1 * 1, w2 = 0.62 + 0.9 v2 - 0.1 * 1 = 0.268.
    weight = keras.Variable([1.0], name="kernel")
    optimizer = build(OptimizerParams(name="sgd", momentum=0.9), 0.1)
    for gradient, expected in ((2.0, 0.62), (1.0, 0.268)):
        optimizer.apply([np.array([gradient], np.float32)], [weight])
        assert float(weight.numpy()[0]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_kernels_alone_decay_and_the_slow_ones_slowly(name):
    model = tiny()
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer = build(OptimizerParams(name=name, weight_decay=0.2), 0.5, ("backbone/",), 0.1)
    optimizer.apply([np.zeros_like(value) for value in before], model.trainable_variables)
    shrunk = {variable.path.split("/", 1)[0]: 1.0 for variable in model.trainable_variables}
    shrunk |= {"backbone": 1 - 0.5 * 0.1 * 0.2, "findings": 1 - 0.5 * 0.2}
    for variable, value in zip(model.trainable_variables, before, strict=True):
        factor = shrunk[variable.path.split("/")[0]] if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(variable.numpy(), factor * value, rtol=1e-6)


def test_kernels_of_every_layer_count_whatever_the_layers_are_called():
    import keras

    from pipeline.training.optimizers import is_kernel

    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.SeparableConv2D(2, 3, name="gamma_bias"),
            keras.layers.DepthwiseConv2D(3, name="beta"),
            keras.layers.LayerNormalization(name="kernel_norm"),
        ]
    )
    found = [variable.name for variable in model.trainable_variables if is_kernel(variable)]
    assert found == ["depthwise_kernel", "pointwise_kernel", "kernel"]
    optimizer = build(OptimizerParams(name="adamw", weight_decay=0.5), 0.1)
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer.apply([np.zeros_like(value) for value in before], model.trainable_variables)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_allclose(variable.numpy(), value * (0.95 if is_kernel(variable) else 1), rtol=1e-6)


@every
def test_the_slow_part_goes_as_with_an_optimizer_of_its_own_rate(params):
    import dataclasses

    params = dataclasses.replace(params, clip_norm=0.0)  # a norm of all weights together is one of both parts
    parts = [step(build(params, rate), tiny().trainable_variables, range(3)) for rate in (0.01, 0.001)]
    model = tiny()
    both = step(build(params, 0.01, ("backbone/",), 0.1), model.trainable_variables, range(3))
    slow = [variable.path.startswith("backbone/") for variable in model.trainable_variables]
    assert slow.count(True) == 4
    assert_same(both, [parts[1][i] if is_slow else parts[0][i] for i, is_slow in enumerate(slow)])


def test_a_slow_part_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no variable that learns has a path that begins with one of"):
        build(PARAMS["adam"], 0.01, ("bone/",), 0.1).build(tiny().trainable_variables)


def test_clip_norm_is_of_all_weights_together():
    import keras

    # The norm of (3, 4) is 5, clipped to 1: (0.6, 0.8).
    variables = [keras.Variable([0.0], name=name) for name in ("kernel", "bias")]
    optimizer = build(OptimizerParams(name="sgd", momentum=0.0, clip_norm=1.0), 1.0)
    optimizer.apply([np.array([value], np.float32) for value in (3, 4)], variables)
    assert [float(variable.numpy()[0]) for variable in variables] == pytest.approx([-0.6, -0.8])


def test_the_rate_can_be_set_as_the_plateau_callback_does():
    import keras

    variable = keras.Variable([0.0], name="kernel")
    optimizer = build(OptimizerParams(name="sgd", momentum=0.0), 1.0)
    optimizer.learning_rate = 0.25
    optimizer.apply([np.ones(1, np.float32)], [variable])
    assert float(variable.numpy()[0]) == -0.25


def test_the_moving_mean_by_hand_and_the_weights_back_to_the_bit():
    from pipeline.training.optimizers import averaged_weights

    model = tiny()
    model.compile(build(OptimizerParams(name="adam", ema=0.75), 0.01), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    start = model.get_weights()
    with averaged_weights(model):
        assert_same(model.get_weights(), start, rtol=0)  # there is no mean before the first step
    after = [step(model.optimizer, model.trainable_variables, [seed]) for seed in range(3)]
    by_hand = [0.75 * (0.75 * one + 0.25 * two) + 0.25 * three for one, two, three in zip(*after, strict=True)]
    with averaged_weights(model):
        assert_same([variable.numpy() for variable in model.trainable_variables], by_hand)
    for variable, value in zip(model.trainable_variables, after[-1], strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize("compiled", [True, False])
def test_without_a_moving_mean_the_weights_stay(compiled):
    from pipeline.training.optimizers import averaged_weights

    model = tiny()
    if compiled:
        model.compile(build(OptimizerParams(name="adam"), 0.01), "mse", jit_compile=False)
        step(model.optimizer, model.trainable_variables, [0])
    before = model.get_weights()
    with averaged_weights(model):
        assert_same(model.get_weights(), before, rtol=0)


@every
def test_restored_state_gives_the_same_next_steps(params):
    from pipeline.params import ScheduleParams
    from pipeline.training.schedules import build_schedule

    def fresh():
        schedule = build_schedule(ScheduleParams(name="exponential", warmup_epochs=0.5, factor=0.5), 0.01, 4, 2)
        return build(params, schedule, ("backbone/",), 0.1)

    model, optimizer, kept = tiny(), fresh(), {}
    step(optimizer, model.trainable_variables, range(3))
    optimizer.save_own_variables(kept)
    weights = model.get_weights()
    expected = step(optimizer, model.trainable_variables, [3, 4])
    again, restored = tiny(), fresh()
    again.set_weights(weights)
    restored.build(again.trainable_variables)
    restored.load_own_variables(kept)
    assert_same(step(restored, again.trainable_variables, [3, 4]), expected, rtol=0)
    assert_same([v.numpy() for v in restored.variables], [v.numpy() for v in optimizer.variables], rtol=0)


@every
def test_an_optimizer_survives_saving(params):
    import keras

    optimizer = build(params, 0.01, ("backbone/",), 0.1)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    results = [step(one, tiny().trainable_variables, range(2)) for one in (optimizer, again)]
    assert_same(*results, rtol=0)


def test_penalties_by_hand_of_the_kernels_that_learn():
    import keras

    from pipeline.training.optimizers import penalise

    model = tiny()
    plain = model.to_json()
    penalise(model, OptimizerParams(l1=0.01, l2=0.1))
    head = model.get_layer("findings").kernel.numpy()
    of_head = 0.01 * np.abs(head).sum() + 0.1 * (head**2).sum()
    of_backbone = 6 * (0.01 + 0.1)  # six weights of 1
    assert float(sum(model.losses)) == pytest.approx(of_head + of_backbone, rel=1e-5)
    model.get_layer("backbone").trainable = False
    assert float(sum(model.losses)) == pytest.approx(of_head, rel=1e-5)
    model.get_layer("backbone").trainable = True
    assert model.to_json() == plain  # a saved model has no trace of it
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    x = np.zeros((2, 3), np.float32)
    data_term = float(np.mean(np.asarray(model(x)) ** 2))
    assert model.train_on_batch(x, np.zeros((2, 2))) == pytest.approx(data_term + of_head + of_backbone, rel=1e-5)


def test_no_penalty_is_no_loss():
    from pipeline.training.optimizers import penalise

    model = tiny()
    penalise(model, OptimizerParams())
    assert model.losses == []


def test_float16_scales_the_loss_once_and_takes_the_same_steps():
    import keras

    def trained(policy):
        keras.config.set_dtype_policy(policy)
        try:
            model = tiny()
            model.compile(build(PARAMS["adamw"], 0.01), "mse", jit_compile=False)
            for _ in range(3):
                model.train_on_batch(np.ones((4, 3), np.float32), np.zeros((4, 2)))
            return model
        finally:
            keras.config.set_dtype_policy("float32")

    half, full = trained("mixed_float16"), trained("float32")
    assert isinstance(half.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(half.optimizer.inner_optimizer, keras.optimizers.LossScaleOptimizer)
    for one, other in zip(half.get_weights(), full.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3)


# In a process of its own, because a processor is divided into logical devices before its first use.
REPLICAS = """
import sys

import numpy as np
import tensorflow as tf

device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras

from pipeline.params import LossParams, OptimizerParams
from pipeline.training.losses import build_loss, reported_loss
from pipeline.training.optimizers import LossScale, averaged_weights, build_optimizer, penalise

rng = np.random.default_rng(0)
x, y = rng.normal(size=(13, 5)).astype("f"), rng.choice([0, 1, np.nan], (13, 3)).astype("f")
params = OptimizerParams(name="adamw", weight_decay=0.1, clip_norm=0.01, ema=0.9, l1=0.001)


def network():
    keras.utils.set_random_seed(3)
    backbone = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, "relu")], name="backbone")
    return keras.Sequential([keras.Input((5,)), backbone, keras.layers.Dense(3, "sigmoid")])


def trained(devices):
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        model = network()
        penalise(model, params)
        loss = build_loss(LossParams(), share=strategy.num_replicas_in_sync / 8)
        optimizer = build_optimizer(params, 0.05, [model.layers[0].trainable_variables[0].path], 0.1)
        model.compile(optimizer, loss, metrics=[reported_loss(loss)], jit_compile=False)
    ends = []

    def end(_epoch, _logs):
        before = model.get_weights()
        with averaged_weights(model):
            ends.append(model.get_weights())
        assert all((a == b).all() for a, b in zip(before, model.get_weights()))
        ends.append(before)

    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)  # of 8 and 5: 4 + 4, and 3 + 2
    ended = keras.callbacks.LambdaCallback(on_epoch_end=end)
    history = model.fit(batches, epochs=2, verbose=0, shuffle=False, callbacks=[ended]).history
    return np.concatenate([w.ravel() for weights in ends for w in weights]), history["image_loss"]


def overflow_of_the_second_replica():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    with strategy.scope():
        model = network()
        optimizer = LossScale(build_optimizer(params, 0.05), initial_scale=4.0)
        optimizer.build(model.trainable_variables)

    @tf.function
    def take(value):
        def on_replica():
            second = tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 1)
            found = [tf.where(second, value, 1.0) * tf.ones(v.shape) for v in model.trainable_variables]
            optimizer.apply(found, model.trainable_variables)

        strategy.run(on_replica)

    seen = []
    for value in (1.0, np.inf):
        take(tf.constant(value))
        seen.append((model.get_weights(), float(optimizer.dynamic_scale.numpy())))
    assert seen[0][1] == 4.0 and seen[1][1] == 2.0, seen
    assert all((a == b).all() for a, b in zip(seen[0][0], seen[1][0]))


(one, one_loss), (two, two_loss) = trained(["/cpu:0"]), trained(["/cpu:0", "/cpu:1"])
np.testing.assert_allclose(two, one, atol=1e-6)
np.testing.assert_allclose(two_loss, one_loss, rtol=1e-5)
overflow_of_the_second_replica()
"""


def test_two_replicas_take_the_steps_of_one_on_ragged_batches(repository: Path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
