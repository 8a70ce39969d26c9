"""A convolutional network learns handwritten digits in ten lines, on a GPU if there is one and on
the CPU otherwise."""
# --- README
import xpnet as xn

data = xn.data.digits()
net = xn.Sequential([
    xn.Conv2d(16, 3, padding="half", activation="relu"), xn.MaxPool2d(2),
    xn.Flatten(), xn.Linear(64, activation="relu"), xn.Linear(10),
], input_shape=data.shape)
print(net.summary())
net.fit(data, loss="cross_entropy", optimizer=xn.Adam(3e-3), schedule="one_cycle", epochs=10)
print(net.evaluate(data.test))
# --- end
