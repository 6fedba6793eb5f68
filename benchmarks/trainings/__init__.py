"""What the benchmarks of training share: plans, time stamps of steps, peers, a cluster of several nodes to disturb."""
