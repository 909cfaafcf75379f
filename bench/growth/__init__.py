"""Making a trained network larger without changing what it computes.

A residual block whose branch ends in zeros is the identity, so a deeper residual network's
class of functions contains the shallower one's. `nesting` says whether that holds for a pair
of networks, and which layer breaks it; `start` fills the larger network, with `width` if it is to
be wider; `proof` compares the two on real images; `grow` is `bench.grow`.
"""
