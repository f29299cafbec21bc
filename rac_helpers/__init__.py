"""Helpers of the course "RandAugment and model compression, in PyTorch".

Import the modules you need, for example ``from rac_helpers import augment, data``. Importing the
package itself loads neither matplotlib nor ipywidgets.
"""

__version__ = "0.1.0"
