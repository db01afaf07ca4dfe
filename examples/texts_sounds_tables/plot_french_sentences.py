"""
French sentences with a multilingual BERT
=========================================

Your texts are not in English. Which network reads them, and what changes in the code? Nothing but a name:
``"hf:bert-base-multilingual-cased"`` knows 104 languages.

It is used here if it is in the cache of the Hugging Face Hub on this machine. Otherwise a tiny BERT with random
weights takes its place, and learns the few words of these sentences from nothing. Then the figures show how the code
runs, and nothing about BERT. ``pip install "sktransfer[text]"`` brings what networks for texts need.
"""

import tempfile

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from sktransfer import FineTunedClassifier
from sktransfer.inspection import SaliencyDisplay, TrainingCurveDisplay

# %%
# Messages of customers
# ---------------------
# They ask about a delivery, a bill or a fault.

MESSAGES = {
    "livraison": """Mon colis n'est toujours pas arrivé. / Quand serai-je livré ? / Le livreur n'a pas sonné.
        Le colis est arrivé ouvert. / Je voudrais changer l'adresse de livraison. / Où est mon colis ?
        Votre transporteur a perdu mon colis. / La livraison était prévue hier. / Le livreur a laissé le colis dehors.
        Le suivi de livraison ne change plus. / Merci de livrer chez mon voisin. / Le transporteur ne répond pas.""",
    "facture": """Ma facture est trop élevée. / Vous avez débité deux fois ma carte. / Je n'ai pas reçu la facture.
        Le montant de la facture est faux. / Comment payer en trois fois ? / Je conteste ce montant.
        Pourquoi ce prélèvement sur mon compte ? / La remise manque sur ma facture. / Je veux être remboursé.
        Le paiement par carte est refusé. / Quel est le montant à payer ? / Je n'ai aucun remboursement.""",
    "panne": """L'appareil ne s'allume plus. / L'écran reste noir. / La machine fait un bruit étrange.
        Le bouton est cassé. / La batterie ne charge plus. / L'écran est fissuré depuis ce matin.
        La machine s'arrête toute seule. / L'appareil chauffe trop. / Le moteur ne démarre pas.
        Un message d'erreur s'affiche à l'écran. / La machine fuit. / Le bouton ne répond plus.""",
}
pairs = [
    (text.strip(), label)
    for label, block in MESSAGES.items()
    for line in block.splitlines()
    for text in line.split(" / ")
]
texts, labels = [text for text, _ in pairs], np.array([label for _, label in pairs])

# %%
# The network
# -----------

folder = tempfile.TemporaryDirectory()
is_real = isinstance(try_to_load_from_cache("bert-base-multilingual-cased", "config.json"), str)
backbone = "hf:bert-base-multilingual-cased" if is_real else f"hf:{folder.name}"
if not is_real:
    disable_progress_bar()
    words = sorted({word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(" ".join(texts))})
    numbers = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=32, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder.name)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    BertModel(BertConfig(vocab_size=len(numbers), max_position_embeddings=32, **sizes)).save_pretrained(folder.name)
print("network:", backbone if is_real else "a tiny BERT with random weights: the accuracy says nothing about BERT")

# %%
# Train every layer
# -----------------
# Six messages are kept aside. For a pretrained BERT, a rate of 5e-5 and three epochs are usual. The tiny one starts
# from nothing, so it takes larger steps, and more of them.

epochs = {"lr": 5e-5, "max_epochs": 3} if is_real else {"lr": 1e-3, "head_lr": 1e-3, "max_epochs": 20}
model = FineTunedClassifier(
    backbone, freeze_depth=0, strategy="fine_tune", batch_size=8, label_smoothing=0.1, random_state=0, **epochs
)
aside = [9, 12, 29, 5, 14, 26]
learned = np.setdiff1d(np.arange(len(texts)), aside)
model.fit([texts[row] for row in learned], labels[learned])
display = TrainingCurveDisplay.from_estimator(model)

# %%
# Which words decide?
# -------------------
# Each word of three of these messages is left out in turn. The darker it is, the more the probability drops without it.

messages = [texts[row] for row in aside]
for text, label, predicted in zip(messages, labels[aside], model.predict(messages), strict=True):
    print(f"  {text:<42} {label:<10} predicted: {predicted}")
display = SaliencyDisplay.from_estimator(model, messages[:3])
folder.cleanup()

# sphinx_gallery_thumbnail_number = 2
