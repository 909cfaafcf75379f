"""What a network's loss looks like around its trained weights.

Li, Xu, Taylor, Studer and Goldstein 2018, "Visualizing the Loss Landscape of Neural Nets"
(arXiv:1712.09913).
"""
