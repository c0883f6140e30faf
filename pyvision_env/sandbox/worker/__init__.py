"""The program that runs inside a sandbox: a zygote that forks one confined Python runtime per episode.

It is copied into the sandbox image and never imports ``pyvision_env``: only the standard library, msgspec and the
libraries offered to the model. The host imports ``wire`` from here, so that both ends speak one protocol.
"""
