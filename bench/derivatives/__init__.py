"""How gradients fare on their way back through a network.

Their norm block by block, before and through training (`norms`, `profile`), and how alike they are
at neighbouring inputs (`correlation`: Balduzzi et al. 2017, "The Shattered Gradients Problem",
arXiv:1702.08591).
"""
