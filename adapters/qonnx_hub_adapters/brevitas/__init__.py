"""Brevitas: live modules, traced on a sample.

The sample's shapes become those of the graph::

    qh.load(net, args=(x,))
    qh.load(net, args=(x,), weights="checkpoint.pt")
    qh.load(net, args=(x,), options={"dynamo": True})

The graph comes from torch's ONNX exporter; every quantizer in it comes from what Brevitas
computed on the sample, and is compared with Brevitas' own function before it is believed.
Brevitas' own ONNX exporter is not used. All options are in
:class:`qonnx_hub_adapters.brevitas.importer.BrevitasOptions`.
"""
