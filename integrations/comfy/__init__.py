"""The samplers of ComfyUI and k-diffusion: their names, and the methods that are theirs alone."""
