"""Training of tool-using vision-language policies on the environment of ``pyvision_env``."""
