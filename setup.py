"""Settings are in setup.cfg; here are only the folders that are packages under another name."""

from setuptools import find_packages, setup

setup(
    # The programs and the trained weights stand beside the package, and inside it in a wheel.
    packages=[*find_packages(include=["clouds_tf*"]), "clouds_tf.tools", "clouds_tf.tools.benchmarks"],
    package_dir={"clouds_tf.tools": "tools"},
)
