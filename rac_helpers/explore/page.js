// One explorer of the built page. Address: #name?num_ops=3&magnitude=15;other?level=20
(() => {
  const figure = document.currentScript.closest("figure");
  const find = (selector) => figure.querySelector(selector);
  const data = JSON.parse(find("[type='application/json']").textContent);
  const inputs = [...figure.querySelectorAll("input")];
  const image = find("img"), caption = find(".rac-caption"), name = figure.dataset.name;
  let timer;

  const show = () => {
    let number = 0; // the last slider runs fastest
    inputs.forEach((input, i) => {
      const at = +input.value, text = data.sliders[i].texts[at];
      number = number * data.sliders[i].texts.length + at;
      input.setAttribute("aria-valuetext", text);
      input.nextElementSibling.value = text;
    });
    const [picture, words] = data.frames[number];
    image.src = data.images[picture];
    image.alt = caption.value = data.captions[words];
  };
  const parts = () => location.hash.slice(1).split(";").filter((part) => part.includes("?"));
  const mine = (part) => part.startsWith(name + "?");
  const save = () => {
    const state = inputs.map((input, i) =>
      input.name + "=" + encodeURIComponent(data.sliders[i].keys[+input.value]));
    const others = parts().filter((part) => !mine(part));
    history.replaceState(history.state, "", "#" + [name + "?" + state.join("&"), ...others].join(";"));
  };
  const load = () => {
    const part = parts().find(mine);
    if (!part) return;
    const state = new URLSearchParams(part.slice(name.length + 1));
    inputs.forEach((input, i) => {
      const at = data.sliders[i].keys.indexOf(state.get(input.name));
      if (at >= 0) input.value = at;
    });
    show();
  };
  const scroll = () => mine(parts()[0] || "") && figure.scrollIntoView();

  inputs.forEach((input) => {
    input.disabled = false;
    input.addEventListener("input", () => {
      show();
      clearTimeout(timer); // browsers allow few address changes a second
      timer = setTimeout(save, 300);
    });
  });
  const player = find(".rac-player");
  if (player) {
    const input = inputs.find((one) => one.name === player.dataset.plays);
    const [play, step, reset] = player.children;
    let clock;
    const go = (at) => { input.value = at; input.dispatchEvent(new Event("input")); };
    const rest = () => {
      clearInterval(clock);
      clock = undefined;
      play.textContent = "Play";
      caption.setAttribute("aria-live", "polite");
    };
    const forward = () => {
      go(+input.value + 1);
      if (input.value === input.max) rest();
    };
    play.addEventListener("click", () => {
      if (clock) return rest();
      if (input.value === input.max) go(0);
      clock = setInterval(forward, +player.dataset.ms);
      play.textContent = "Pause";
      caption.setAttribute("aria-live", "off"); // nobody can listen that fast
    });
    step.addEventListener("click", () => { rest(); forward(); });
    reset.addEventListener("click", () => { rest(); go(0); });
    for (const button of player.children) button.disabled = false;
  }
  load();
  addEventListener("load", scroll); // only now all that is above has its height
  addEventListener("hashchange", () => { load(); scroll(); });
})();
