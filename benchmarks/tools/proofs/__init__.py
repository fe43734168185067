"""The learners, and the proof that each estimates what it says; ``metaduel proofs`` writes docs/learners.md.

Every gradient comes from the shipped losses, inner step and learners, on games so short that all that can happen is listed
(``enumerated``): an estimate is then its own expectation, and is compared with the derivative of the objective in closed form.
What sampled batches make of it, and how much memory an update holds, is measured. Nothing in the page is written by hand.
"""
