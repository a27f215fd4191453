"""What is done with a trained denoiser beside drawing samples: inverse problems, editing, flow maps, teachers.

Everything here stands on `logsnr.solvers`, and nothing there imports it.
"""
