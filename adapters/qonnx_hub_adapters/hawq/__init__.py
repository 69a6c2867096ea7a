"""HAWQ: live modules, checkpoints, and the ONNX files that its exporter writes.

A live module is traced on a sample; the first axis is the batch::

    qh.load(net, args=(x,))                             # every integer identical to HAWQ's
    qh.load(net, args=(x,), options={"mode": "quant"})  # Quant nodes only

A checkpoint holds no topology::

    qh.load("checkpoint.pth.tar", args=(x,), options={"builder": make_net})
    qh.load("checkpoint.pth.tar", options={"chain": ["quant_input", "dense_1", "relu", ...],
                                           "weight_scales": False})

A file of HAWQ's exporter has lost the quantizers of its activations::

    qh.load("hawq.onnx", options={"act_bits": {"MatMul_1": 6, "MatMul_2": -4}})

All options are in :class:`qonnx_hub_adapters.hawq.options.HawqOptions`.
"""
