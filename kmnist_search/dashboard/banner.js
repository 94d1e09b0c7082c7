// Says on optuna-dashboard's page what it keeps to itself: why a request was refused, or that the database is away.
(() => {
  const banner = document.createElement("div");
  banner.id = "kmnist-search-banner";
  banner.setAttribute("role", "status");
  banner.style.cssText =
    "position:fixed;z-index:9999;top:76px;left:50%;transform:translateX(-50%);max-width:80vw;padding:12px 16px;" +
    "border-radius:6px;background:#5f2120;color:#fff;font:15px/1.4 system-ui,sans-serif;overflow-wrap:anywhere";
  let hiding;
  const hide = () => {
    hiding = undefined;
    banner.remove();
  };
  const show = (text, milliseconds) => {
    clearTimeout(hiding);
    hiding = milliseconds ? setTimeout(hide, milliseconds) : undefined;
    banner.textContent = text;
    document.body.append(banner);
  };

  const ask = window.fetch;
  window.fetch = async (...question) => {
    let answer;
    try {
      answer = await ask(...question);
    } catch (error) {
      show("The dashboard's server does not answer. This page shows what it knew before.");
      throw error;
    }
    if (answer.ok) {
      if (!hiding) hide();
      return answer;
    }
    const { reason } = await answer.clone().json().catch(() => ({}));
    if (answer.status === 503) {
      show(`${reason || "The database is away."} This page shows what it knew before, and tries again by itself.`);
    } else if (reason) {
      show(reason, 8000);
    }
    return answer;
  };
})();
