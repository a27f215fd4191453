"""What diffusers' schedulers mean by their options, and a run of one, one call at a time."""
