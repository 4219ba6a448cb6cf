"""What comes in: images that were held out, and what a folder was begun with.

May import `rlprune.pipelines` and below; `rlprune.optimization` imports it.
"""
