"""Sandboxes on the nodes of a Ray cluster, with the face of a sandbox on this machine.

On each node an actor (``node``) owns an ordinary sandbox. Here, ``members`` keeps those actors running, ``placement``
says which of them gets the next episode, ``media`` hands each image and video over once, and ``pool`` and ``episode``
are what the rest of the house sees. Only media and code cross to the actors: no question, no answer, no file name.
"""
