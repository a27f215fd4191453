"""Fitted tables: `tune` for one denoiser, and the universal ones."""
