"""Modality encoders: media tensors -> Features."""

from sensorium.core.tables import NameTable

ENCODERS = NameTable(
    "encoder",
    {
        "efficientnet_lite": "sensorium.encoders.efficientnet_lite:EfficientNetLiteConfig",
        "clip": "sensorium.encoders.clip:ClipConfig",
        "siglip": "sensorium.encoders.siglip:SiglipConfig",
        "dinov2": "sensorium.encoders.dinov2:Dinov2Config",
        "vit": "sensorium.encoders.vit:VitConfig",
        "blip_vit": "sensorium.encoders.blip_vit:BlipVitConfig",
        "blip2_vit": "sensorium.encoders.blip2_vit:Blip2VitConfig",
        "idefics_vit": "sensorium.encoders.idefics_vit:IdeficsVitConfig",
        "qwen2_vit": "sensorium.encoders.qwen2_vit:Qwen2VitConfig",
        "qwen2_5_vit": "sensorium.encoders.qwen25_vit:Qwen25VitConfig",
        "rice_vit": "sensorium.encoders.rice_vit:RiceVitConfig",
        "qwen_vit": "sensorium.encoders.qwen_vit:QwenVitConfig",
        "vit_22b": "sensorium.encoders.vit_22b:Vit22bConfig",
        "eva2": "sensorium.encoders.eva2:Eva2Config",
        "imagebind": "sensorium.encoders.imagebind:ImageBindConfig",
        "fused": "sensorium.encoders.fused:FusedConfig",
    },
)
