"""The protocol of adaptation, and the adapters other than our meta-learners."""
