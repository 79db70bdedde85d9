"""Metadata lives in settings.ini; this file only hands it to setuptools."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

cfg = ConfigParser(delimiters=["="])
cfg.read(HERE / "settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]
name = cfg["name"]
dev = cfg["dev_requirements"].split()


def extra(prefix):
    """Return the requirements of development whose names begin like this."""
    return [requirement for requirement in dev if requirement.startswith(prefix)]


setup(
    name=name,
    version=cfg["version"],
    description=cfg["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    license_expression=cfg["license"],
    license_files=["LICENSE"],
    classifiers=[
        "Programming Language :: Python :: 3",
        "Framework :: Jupyter",
        "Intended Audience :: Education",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=" + cfg["min_python"],
    packages=find_packages(HERE, include=[name, f"{name}.*"]),
    package_data={name: ["weights/*", "widget/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require={"dev": dev, "onnx": extra("onnx"), "widgets": extra("anywidget")},
    entry_points={"nbdev": [f"{name}={name}._modidx:d"]},
    zip_safe=False,
)
