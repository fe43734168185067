"""The learners, and the proof that each estimates its declared gradient; ``metaduel proofs`` writes docs/learners.md.

Every gradient comes from the shipped losses, inner step and learners, on games so short that all outcomes are listed
(``enumerated``): an estimate is then its own expectation, and is compared with the derivative of the objective in closed form.
The bias with sampled batches and the memory of an update are measured. No part of the page is written by hand.
"""
