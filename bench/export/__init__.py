"""From a trained network to a file that runs elsewhere and computes the same.

`pipeline` makes an ONNX file of a network (`graph`) and compares it with PyTorch (`proof`, by the
comparison in `parity`); `foreign` quantises a file that was made elsewhere, which `examine` reads;
`half` and `quantise` change its precision, `sensitivity` finds the layers that int8 affects most;
`build` makes TensorRT engines; `output` copies files and writes bundles.
"""
