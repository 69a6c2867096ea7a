"""Plain PyTorch: modules, FX and PT2E graphs, exported programs.

Everything that ``torch.export`` can trace is read; quantizers of any integer range are found
where torch has them: FakeQuantize modules (FX and eager quantization-aware training,
torchao's PT2E, prepared or converted), ``torch.fake_quantize_*`` calls, and
``quantized_decomposed.quantize_* / dequantize_*`` pairs::

    qh.load(net, args=(x,))                             # every value as torch computes it
    qh.load(net, args=(x,), options={"mode": "quant"})  # Quant nodes only
    qh.load("program.pt2")                              # written by torch.export.save

torch multiplies by the rounded ``1 / scale`` and adds the zero point after rounding; a
``Quant`` node divides, and adds before. In mode "exact" a quantizer is a single ``Quant`` node
where both are proven to be the same for every float32, and a ``Quant`` node behind torch's own
rounding (Mul, Round, Mul) elsewhere. Mode "quant" leaves these three operators out.
Neither is about infinities, NaN and quotients beyond 2^63, which torch makes integers of in
ways that depend on the function and the processor.
"""
