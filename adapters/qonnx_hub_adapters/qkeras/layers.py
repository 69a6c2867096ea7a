"""QDenseBatchnorm for qkeras 0.9.0, which lacks it; models of MLPerf Tiny are made of it."""

from __future__ import annotations

from typing import Any

from qonnx_hub_adapters.qkeras.framework import Framework

_NORMALIZATION = (
    *("axis", "momentum", "epsilon", "center", "scale"),
    *("beta_initializer", "gamma_initializer"),
    *("moving_mean_initializer", "moving_variance_initializer"),
    *("beta_regularizer", "gamma_regularizer", "beta_constraint", "gamma_constraint"),
)
"""Constructor arguments that belong to the normalization inside."""

_DROPPED = ("renorm", "renorm_clipping", "renorm_momentum")
"""Written by the layer of old qkeras sources, without effect at inference."""


def dense_batchnorm(framework: Framework) -> Any:
    """Return the class QDenseBatchnorm: a QDense whose kernel has a normalization folded in.

    At inference, with ``f = gamma / sqrt(moving_variance + epsilon)``::

        act(x . Wk(f * kernel) + Wb(f * (bias - moving_mean) + beta))

    Wk and Wb are the kernel's and the bias' quantizers; each may be missing. Weights are laid
    out like those of QConv2DBatchnorm: kernel, bias, gamma, beta, iteration, statistics.

    Args:
        framework: Keras 2 and qkeras 0.9.0.
    """
    keras, tf = framework.keras, framework.tf
    base: Any = framework.qkeras.QDense

    class QDenseBatchnorm(base):  # type: ignore[misc]
        """QDense with a folded batch normalization; for inference only."""

        def __init__(
            self,
            units: int,
            ema_freeze_delay: int | None = None,
            folding_mode: str = "ema_stats_folding",
            **kwargs: Any,
        ) -> None:
            given = {name: kwargs.pop(name) for name in _NORMALIZATION if name in kwargs}
            for name in _DROPPED:
                kwargs.pop(name, None)
            super().__init__(units=units, **kwargs)
            self.batchnorm = keras.layers.BatchNormalization(**given)
            self.ema_freeze_delay = ema_freeze_delay
            self.folding_mode = folding_mode

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.batchnorm.build((*tuple(input_shape)[:-1], self.units))
            self._iteration = tf.Variable(
                -1, trainable=False, name="iteration", dtype=tf.int64
            )

        def get_folded_weights(self) -> list[Any]:
            """Return the float kernel and bias with the normalization folded in."""
            norm = self.batchnorm
            factor = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
            if norm.gamma is not None:
                factor *= norm.gamma
            bias = (self.bias if self.use_bias else 0.0) - norm.moving_mean
            offset = factor * bias
            return [
                factor * self.kernel,
                offset if norm.beta is None else offset + norm.beta,
            ]

        def call(self, inputs: Any, training: Any = None) -> Any:
            kernel, bias = self.get_folded_weights()
            if self.kernel_quantizer is not None:
                kernel = self.kernel_quantizer_internal(kernel)
            if self.bias_quantizer_internal is not None:
                bias = self.bias_quantizer_internal(bias)
            y = keras.backend.bias_add(keras.backend.dot(inputs, kernel), bias)
            return y if self.activation is None else self.activation(y)

        def get_config(self) -> dict[str, Any]:
            own = {
                "ema_freeze_delay": self.ema_freeze_delay,
                "folding_mode": self.folding_mode,
            }
            return {**self.batchnorm.get_config(), **super().get_config(), **own}

    return QDenseBatchnorm
