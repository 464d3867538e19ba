"""Packages and where they lie; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fastdraw", "fastdraw.*"]), "fastdraw.kernels", "fastdraw.kernels.cpu", "fastdraw.kernels.triton"],
    package_dir={"fastdraw.kernels": "kernels"},
    package_data={"fastdraw": ["py.typed"]},
)
