"""Small components of diffusion pipelines with random weights, for tiny forms of recipes and for tests.

They have the classes of the published ones, so that a pipeline of them is saved in the published layout. Text
encoders read bytes: their tokenizers have a vocabulary of letters and no merges.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HEADS = 2
LATENT_CHANNELS = 4
LATENT_SIDE = 8
TEXT_LENGTH = 24
"""Tokens of a tiny text encoder."""
_LEVELS = 4
"""Levels of the VAE: as in the published ones, a latent is 8 pixels wide."""


def unet(width: int, **options: Any) -> Any:
    """A UNet of two levels that looks at conditions of such a width."""
    return _diffusers().UNet2DConditionModel(**(_unet_shape() | options), cross_attention_dim=width).eval()


def audio_unet(width: int) -> Any:
    """AudioLDM's: the condition is added to the time embedding, and layers attend to themselves alone."""
    return _diffusers().UNet2DConditionModel(
        **_unet_shape(), class_embed_type="simple_projection", projection_class_embeddings_input_dim=width,
        class_embeddings_concat=True, cross_attention_dim=_unet_shape()["block_out_channels"],
    ).eval()  # fmt: skip


def two_text_unet(width: int, text_width: int) -> Any:
    """AudioLDM 2's: after each attention to the picture itself one to each of two conditions."""
    return _diffusers().AudioLDM2UNet2DConditionModel(**_unet_shape(), cross_attention_dim=([None, width, text_width],) * 2).eval()


def video_unet(width: int) -> Any:
    return _diffusers().UNet3DConditionModel(
        sample_size=LATENT_SIDE, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=width,
    ).eval()  # fmt: skip


def vae(channels: int = 3, latent_channels: int = LATENT_CHANNELS) -> Any:
    """From latents to pictures eight times as wide, or to spectrograms (one channel)."""
    return _diffusers().AutoencoderKL(
        in_channels=channels, out_channels=channels, latent_channels=latent_channels, block_out_channels=(8,) * _LEVELS, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * _LEVELS, up_block_types=("UpDecoderBlock2D",) * _LEVELS, layers_per_block=1,
        sample_size=LATENT_SIDE * 2 ** (_LEVELS - 1),
    ).eval()  # fmt: skip


def scheduler(name: str = "DDIMScheduler", **options: Any) -> Any:
    """Stable Diffusion's noise schedule under one of diffusers' schedulers."""
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return getattr(_diffusers(), name)(**schedule, **options)


def clip_text(width: int, projection: bool = False) -> Any:
    """CLIP's text tower, with its projection as the second of SDXL's has one."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    size = len(_letters()) * 2 + 2
    config = CLIPTextConfig(
        vocab_size=size, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=HEADS,
        max_position_embeddings=TEXT_LENGTH, projection_dim=width, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    words = [*_letters(), *(f"{letter}</w>" for letter in _letters()), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_LENGTH)


def clip_vision(width: int) -> Any:
    """CLIP's picture tower with its projection, of 32 x 32 pixels."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=HEADS, image_size=32, patch_size=8, projection_dim=width,
    )).eval()  # fmt: skip


def clip_pictures() -> Any:
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def roberta_tokenizer() -> Any:
    from transformers import RobertaTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", *_letters(), "<mask>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=64)


def _clap_text_config(width: int) -> dict[str, Any]:
    return {
        "vocab_size": len(_letters()) + 5, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": HEADS,
        "max_position_embeddings": 80, "projection_dim": width,
    }  # fmt: skip


def clap_text(width: int) -> Any:
    """CLAP's text tower with its projection."""
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    return ClapTextModelWithProjection(ClapTextConfig(**_clap_text_config(width))).eval()


def clap(width: int) -> Any:
    """The whole of CLAP."""
    from transformers import ClapConfig, ClapModel

    audio = {
        "hidden_size": 64, "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [HEADS, HEADS], "num_hidden_layers": 2,
        "spec_size": 64, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4, "num_mel_bins": 16, "projection_dim": width,
    }  # fmt: skip
    return ClapModel(ClapConfig(text_config=_clap_text_config(width), audio_config=audio, projection_dim=width)).eval()


def clap_sounds() -> Any:
    from transformers import ClapFeatureExtractor

    return ClapFeatureExtractor(feature_size=16, sampling_rate=4000, hop_length=40, fft_window_size=64, max_length_s=1)


def t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(
        vocab_size=len(_letters()) + 3, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=HEADS, feed_forward_proj="gated-gelu",
    )).eval()  # fmt: skip


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -1.0) for letter in _letters())]
    return T5Tokenizer(vocab=words, extra_ids=0, model_max_length=TEXT_LENGTH)


def gpt2(width: int, tokens: int) -> Any:
    """AudioLDM 2's language of sound: it writes `tokens` states."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=128, n_embd=width, n_layer=1, n_head=HEADS)).eval()
    model.config.max_new_tokens = tokens
    return model


def sound_projection(clap_width: int, text_width: int, width: int) -> Any:
    return import_module("diffusers.pipelines.audioldm2.modeling_audioldm2").AudioLDM2ProjectionModel(clap_width, text_width, width).eval()


def vocoder(bins: int = 64) -> Any:
    """Spectrograms -> sound of 4,000 samples a second, four of them a row of the spectrogram."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    return _louder(SpeechT5HifiGan(SpeechT5HifiGanConfig(
        model_in_dim=bins, sampling_rate=4000, upsample_initial_channel=16, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], normalize_before=False,
    )))  # fmt: skip


def vits() -> Any:
    """A VITS that speaks 16,000 samples a second, of few channels."""
    from transformers import VitsConfig, VitsModel

    return _louder(VitsModel(VitsConfig(
        vocab_size=len(_letters()) + 2, hidden_size=16, num_hidden_layers=1, num_attention_heads=HEADS, ffn_dim=32, flow_size=16,
        spectrogram_bins=9, upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], depth_separable_channels=2, duration_predictor_num_flows=2,
        duration_predictor_filter_channels=16, prior_encoder_num_flows=2, prior_encoder_num_wavenet_layers=2, posterior_encoder_num_wavenet_layers=1,
        wavenet_dilation_rate=1,
    )), "decoder.")  # fmt: skip


def vits_tokenizer() -> Any:
    import json

    from transformers import VitsTokenizer

    words = ["<pad>", *_letters(), "<unk>"]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.json"
        file.write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
        return VitsTokenizer(str(file), phonemize=False, language="eng")


def speecht5() -> Any:
    """A SpeechT5 for texts, of few channels."""
    from transformers import SpeechT5Config, SpeechT5ForTextToSpeech

    model = SpeechT5ForTextToSpeech(SpeechT5Config(
        vocab_size=len(_letters()) + 4, hidden_size=16, encoder_layers=1, encoder_attention_heads=HEADS, encoder_ffn_dim=32, decoder_layers=1,
        decoder_attention_heads=HEADS, decoder_ffn_dim=32, num_mel_bins=16, speech_decoder_prenet_layers=2, speech_decoder_prenet_units=16,
        speaker_embedding_dim=8, speech_decoder_postnet_layers=2, speech_decoder_postnet_units=16, max_text_positions=64,
        max_speech_positions=256,
    )).eval()  # fmt: skip
    # Random weights would stop at once: it speaks as long as it may.
    model.speech_decoder_postnet.prob_out.bias.data.fill_(-20.0)
    return model


def speecht5_tokenizer() -> Any:
    """A sentencepiece model whose pieces are letters."""
    from transformers import SpeechT5Tokenizer

    letters = [letter for letter in _letters() if letter.isascii() and letter.strip()]
    with TemporaryDirectory() as folder:
        import_module("sentencepiece").SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(letters), "".join(letters)]), model_prefix=f"{folder}/spm_char", model_type="char",
            vocab_size=len(letters) + 5, bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2,
        )  # fmt: skip
        return SpeechT5Tokenizer.from_pretrained(folder)


def _diffusers() -> Any:
    return import_module("diffusers")


def _louder(model: Any, prefix: str = "") -> Any:
    """Fresh weights of a vocoder are so small that its sound is silence; these are not."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(prefix) and weight.ndim > 1:
                weight.normal_(0.0, 0.3)
    return model.eval()


def _unet_shape() -> dict[str, Any]:
    return {
        "sample_size": LATENT_SIDE, "in_channels": LATENT_CHANNELS, "out_channels": LATENT_CHANNELS, "block_out_channels": (8, 16),
        "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip


def _letters() -> list[str]:
    return [*"abcdefghijklmnopqrstuvwxyz0123456789 .,'!?-", "\u0120", "\u2581"]
