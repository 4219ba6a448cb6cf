"""One command from a trained network and images to an honest verdict: `rlprune.optimize`.

Check, plan, train, compare with rivals that were trained as long, choose on validation images, measure once on test
images, say what to deploy, and leave it ready. It may import everything but the command line, which alone imports it.
"""
