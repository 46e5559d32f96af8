"""ImageNet-P (Hendrycks and Dietterich, ICLR 2019) at difficulty 1, from the authors' videos."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from an_jax.data.builders import class_folders
from an_jax.data.sets.downloads import DOWNLOADS
from an_jax.data.sets.image_sets import PERTURBATION_ARCHIVES

_PAGE = DOWNLOADS["imagenet-p"].page
_ARCHIVE_OF = {name: archive for archive, names in PERTURBATION_ARCHIVES.items() for name in names}
_CONTENTS = "; ".join(
    f"{archive} ({', '.join(names)})" for archive, names in PERTURBATION_ARCHIVES.items()
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """One short video of a perturbation for each of the 50,000 validation images."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, description=f"{name}, difficulty 1")
        for name in _ARCHIVE_OF
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put the archive of the perturbation, from {_PAGE}, into manual_dir: "
        f"{_CONTENTS}. "
        "<perturbation>.tar, <perturbation>.tar.gz or the unpacked <perturbation>/ work too. "
        "ImageNet-C's archives have the same names: keep them in another folder."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=class_folders.features(video=tfds.features.Scalar(np.object_)),
            supervised_keys=("video", "label"),
            homepage="https://github.com/hendrycks/robustness",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        name = self.builder_config.name
        names = [name, f"{name}.tar", f"{name}.tar.gz", _ARCHIVE_OF[name]]
        source = class_folders.find_archive(dl_manager.manual_dir, names, _PAGE)
        return {"test": self._generate_examples(source, name, dl_manager)}

    def _generate_examples(
        self, source: epath.Path, folder: str, dl_manager: tfds.download.DownloadManager
    ) -> Iterator[tuple[str, dict]]:
        return class_folders.generate_examples("video", source, folder, dl_manager)
