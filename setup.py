"""Settings are in setup.cfg; here are only the folders that are packages under another name."""

from setuptools import find_packages, setup

# The programs, recipes and trained weights stand beside the package, and inside it in a wheel.
BESIDE = {
    "clouds_tf.tools": "tools",
    "clouds_tf.tools.benchmarks": "tools/benchmarks",
    "clouds_tf.recipes": "recipes",
    "clouds_tf.trained": "models",
}
setup(packages=[*find_packages(include=["clouds_tf*"]), *BESIDE], package_dir=BESIDE)
