"""The speed of the games, of training and of evaluation on this machine: ``metaduel speed``.

Tables that can be compared with another commit's, in turn, each package in a process of its own (see ``workloads`` and
``packages``). Beside a workload stands its floor: every matrix product of it, by shape and memory layout, run alone in the same
process. What lies above it is sampling, element-wise work and overhead.

Tables with more detail, medians, for comparing versions and machines:

- *families*: environment steps per second of every family, by batch size. A step is ``Duel.step`` with the dynamics' noise, and
  ``Duel.observe`` for both roles; episodes start anew at the horizon. Random actions are drawn before, outside the time.
  *Eager*; *compiled* through ``torch.compile``; and *with autoreset*: one learner's seat, a scripted opponent that decides in
  the other, next-step resets with freshly sampled tasks, as in the vector environment but for NumPy. Then eager on the
  accelerator, where there is one.
- *iterations*, *methods*, *trpo*: one meta-iteration on 2-D navigation: 20 tasks, 20 episodes each, 100 steps, one second-order
  inner step, Adam outside, two layers of 64 units; by method; and with a TRPO step outside (10 conjugate-gradient iterations, up
  to 15 step lengths), and what its curvature's share of the episodes costs in gain.
- *personas*: one chain of Meta-MAPG against a learning persona, as Kim et al. (ICML 2021) run it: 8 batches of 64 episodes with 7
  updates of both players between them and the outer step, on rock-paper-scissors (50 steps) and the iterated prisoner's dilemma
  (150). Chains are batched over personas, a few at once as in training, and their seconds divided by how many there are. Once
  with the paper's recurrent policy, an LSTM of 64 units, once with a memory-1 network of 64 units that is asked once per state.
- *classification* (`meta.problems.supervised`): a meta-gradient of second and of first order with MAML's convolutional network,
  32 tasks at once, and the second-order one task by task in a Python loop over the same calls, with one and two threads. Each in
  a process of its own.
- *peers*: other environments, where they are installed. *gpu*: what one accelerator does.

On a shared machine compare ratios within one run, never seconds of different runs.
"""
