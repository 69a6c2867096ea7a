"""Recurrent nets, control flow, sequences, text, random numbers, and what has no family."""

from __future__ import annotations

from qonnx_hub_ir.operators.row import Family, Operator, row, rows

_RECURRENT = "data +weight +recurrence +bias -lengths state"

_RANDOM = (
    row("", Family.RANDOM, "Bernoulli", "data", random=True),
    row("", Family.RANDOM, "Multinomial", "data", random=True),
    *rows("", Family.RANDOM, "RandomNormal RandomUniform", random=True),
    *rows("", Family.RANDOM, "RandomNormalLike RandomUniformLike", "data", random=True),
)

_CONTROL = (
    row("", Family.CONTROL, "If", "condition", subgraphs=True, tells_zeros_apart=True),
    row(
        *("", Family.CONTROL, "Loop", "trips condition carried*"),
        subgraphs=True,
        tells_zeros_apart=True,
    ),
    row("", Family.CONTROL, "Scan", "carried*", subgraphs=True, tells_zeros_apart=True),
    row(
        *("", Family.CONTROL, "SequenceMap", "sequence data*"),
        subgraphs=True,
        no_tensors=True,
        tells_zeros_apart=True,
    ),
)

_SEQUENCES = (
    row("", Family.SEQUENCE, "ConcatFromSequence", "sequence", no_tensors=True),
    row("", Family.SEQUENCE, "SequenceAt", "sequence -position", no_tensors=True),
    row("", Family.SEQUENCE, "SequenceConstruct", "data*", no_tensors=True),
    row("", Family.SEQUENCE, "SequenceEmpty", no_tensors=True),
    row("", Family.SEQUENCE, "SequenceErase", "sequence -position", no_tensors=True),
    row("", Family.SEQUENCE, "SequenceInsert", "sequence data -position", no_tensors=True),
    row("", Family.SEQUENCE, "SequenceLength", "sequence", no_tensors=True),
    row("", Family.SEQUENCE, "SplitToSequence", "data -split", no_tensors=True),
    *rows(
        *("", Family.SEQUENCE, "Optional OptionalGetElement OptionalHasElement", "data"),
        no_tensors=True,
    ),
)

_GENERATORS = (
    row("", Family.GENERATOR, "Constant"),
    row("", Family.GENERATOR, "ConstantOfShape", "-shape"),
    row("", Family.GENERATOR, "EyeLike", "-like", needs_type=True),
    row("", Family.GENERATOR, "Range", "start limit delta", changed=(27,)),
    *rows("", Family.GENERATOR, "BlackmanWindow HammingWindow HannWindow", "size"),
    row(
        *("", Family.GENERATOR, "MelWeightMatrix"),
        "mel_bins dft_length sample_rate lower_edge upper_edge",
    ),
)

_REST = (
    row("", Family.OTHER, "Det", "data"),
    row("", Family.OTHER, "RotaryEmbedding", "data +cosines +sines -positions"),
    row("", Family.OTHER, "DFT", "data -length -axis", changed=(20,)),
    row("", Family.OTHER, "STFT", "signal -step +window -length"),
    row("", Family.OTHER, "NonMaxSuppression", "boxes scores -most +overlap +threshold"),
    *rows(
        *("", Family.OTHER, "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss"),
        "data target +weight",
    ),
    row("", Family.OTHER, "ImageDecoder", "stream"),
    row("", Family.OTHER, "RegexFullMatch", "text", needs_type=True),
    *rows("", Family.OTHER, "StringNormalizer StringSplit", "text"),
    row("", Family.OTHER, "StringConcat", "left right"),
    row("", Family.OTHER, "TfIdfVectorizer", "data"),
)

_FOREIGN = (
    *rows(
        *("ai.onnx.preview.training", Family.OTHER, "Adagrad Adam Momentum"),
        "rate step data*",
        changed=None,
    ),
    row("ai.onnx.preview.training", Family.OTHER, "Gradient", "data*", changed=None),
    *rows(
        *("ai.onnx.ml", Family.OTHER),
        "ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer "
        "FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor Normalizer "
        "OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble TreeEnsembleClassifier "
        "TreeEnsembleRegressor ZipMap",
        "data*",
        tells_zeros_apart=True,
        changed=None,
    ),
)

OPERATORS: tuple[Operator, ...] = (
    *rows("", Family.RECURRENT, "RNN GRU", _RECURRENT, time_first=True),
    row(
        *("", Family.RECURRENT, "LSTM", f"{_RECURRENT} cell +peephole"),
        time_first=True,
    ),
    *_RANDOM,
    *_CONTROL,
    *_SEQUENCES,
    *_GENERATORS,
    *_REST,
    *_FOREIGN,
)
"""Their rows."""
